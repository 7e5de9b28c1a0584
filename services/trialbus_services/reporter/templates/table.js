// The table of trials: all rows are data, and the rows of a page are elements.
{
  const { header, rows, best } = JSON.parse(document.getElementById("trials-data").textContent);
  const PAGE = 100, table = document.getElementById("table"), body = table.tBodies[0];
  const filter = document.getElementById("filter"), status = document.getElementById("status");
  const [previous, next] = document.querySelectorAll(".pages button");
  const isBest = new Set(best), lower = header.map(name => name.toLowerCase());
  const format = value => formatValue(value, VALUE_DIGITS);
  const texts = rows.map(row => row.map(format).join("\n").toLowerCase());
  // Numbers that are not finite come as text.
  const toNumber = value => typeof value === "string" ? { Infinity: Infinity, "-Infinity": -Infinity }[value] ?? Number(value || NaN) : value;
  const numeric = header.map((_, i) => rows.every(row => row[i] === null || !Number.isNaN(toNumber(row[i])) || row[i] === "NaN"));
  let visible = rows.map((_, i) => i), first = 0;

  const compare = {
    "=": (a, b) => a === b, "!=": (a, b) => a !== b,
    "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
  };
  // `lr<0.01 state=pruned adam`: conditions on columns, and words that any column may hold.
  function createMatcher(text) {
    const tests = (text.toLowerCase().match(/(?:"[^"]*"|\S)+/g) ?? []).map(raw => {
      const term = raw.replaceAll('"', "");
      const [, name, operator, wanted] = term.match(/^(.+?)(<=|>=|!=|=|<|>)(.*)$/) ?? [];
      const column = lower.indexOf(name);
      if (column < 0) return row => texts[row].includes(term);
      const test = compare[operator];
      return row => {
        const value = rows[row][column];
        if (value === null) return wanted === "" ? operator === "=" : operator === "!=";
        return numeric[column] && wanted !== "" && !Number.isNaN(Number(wanted))
          ? test(toNumber(value), Number(wanted)) : test(format(value).toLowerCase(), wanted);
      };
    });
    return row => tests.every(test => test(row));
  }

  function render() {
    const page = visible.slice(first, first + PAGE);
    body.replaceChildren(...page.map(i => {
      const line = document.createElement("tr");
      if (isBest.has(rows[i][0])) line.className = "best";
      line.append(...rows[i].map((value, column) => {
        const cell = document.createElement("td");
        cell.textContent = format(value);
        if (!numeric[column]) cell.className = "text";
        if (header[column] === "state") cell.classList.add(value);
        return cell;
      }));
      return line;
    }));
    const of = visible.length === rows.length ? `${rows.length.toLocaleString("en")} trials` :
      `${visible.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} trials`;
    status.textContent = visible.length > PAGE ? `${first + 1} to ${first + page.length} of ${of}` : of;
    previous.parentElement.hidden = visible.length <= PAGE;
    previous.disabled = first === 0;
    next.disabled = first + PAGE >= visible.length;
  }

  let order = null;
  function filterAndSort() {
    const matches = createMatcher(filter.value);
    visible = rows.map((_, i) => i).filter(matches);
    if (order) {
      const { column, sign } = order;
      const key = i => numeric[column] && rows[i][column] !== null ? toNumber(rows[i][column]) : rows[i][column];
      const missing = value => value === null || Number.isNaN(value);
      visible = visible.map(i => [key(i), i]).sort(([a, i], [b, j]) =>
        // Rows without a value come last in either direction.
        missing(a) || missing(b) ? missing(a) - missing(b) || i - j :
        (numeric[column] ? (a > b) - (a < b) : String(a).localeCompare(String(b))) * sign || i - j
      ).map(([, i]) => i);
    }
    first = 0;
    render();
  }

  table.querySelectorAll("thead th").forEach((head, column) => {
    head.classList.toggle("text", !numeric[column]);
    head.firstElementChild.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      table.querySelectorAll("th").forEach(th => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      order = { column, sign };
      filterAndSort();
    });
  });
  filter.addEventListener("input", filterAndSort);
  const turnPage = rowCount => () => { first += rowCount; render(); table.parentElement.scrollTop = 0; };
  previous.addEventListener("click", turnPage(-PAGE));
  next.addEventListener("click", turnPage(PAGE));
  render();
}
