// A trial as a client of trialbus: publish events, receive a prune, keep the session alive. See docs/protocol.md.
import { randomBytes, randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { decode, encode } from "@msgpack/msgpack";
import { Dealer } from "zeromq";

const PUBLISH = 1, FETCH = 2, HELLO = 4, PING = 5, BYE = 6;
const ACK = 11, EVENTS = 12, SEEN = 14, WELCOME = 15, REFUSED = 19, SESSION_LOST = 410;
const NOW = -1, WAIT_MS = 30_000, RESEND_MS = 1000, ANSWER_MS = 5000, TTL_MS = 30_000;

export class Pruned extends Error {}
export class Lost extends Error {}

// JSON has no infinities and no NaN: these numbers stand beside the event, by JSON Pointer.
function parseTrial(text) {
  const assigned = JSON.parse(text);
  for (const [pointer, number] of Object.entries(assigned.non_finite ?? {})) {
    const path = pointer.split("/").slice(1).map(part => part.replaceAll("~1", "/").replaceAll("~0", "~"));
    const last = path.pop();
    path.reduce((place, part) => place[part], assigned)[last] = Number(number);
  }
  return assigned;
}

export class Trial {
  #socket = new Dealer({ immediate: true, probeRouter: true, linger: 0 });
  #publisher = randomBytes(16);
  #session = randomUUID();
  #outbox = [];        // [seq, topic, body], oldest first, until acknowledged
  #seq = 0;
  #sending = Promise.resolve();
  #next = NOW;         // offset of the prune subscription
  #request = 0;
  #answerBy = Infinity;
  #unsent = 0;
  #pruned = false;
  #registered = false; // the hub has confirmed the session
  #lost = false;       // the hub has declared the session lost
  #acknowledged = () => {};
  #timers = [];
  #began = Date.now();

  /** The trial that a worker started this process for. */
  constructor(endpoint = process.env.TRIALBUS_ENDPOINT, trial = process.env.TRIALBUS_TRIAL) {
    if (!endpoint || !trial) throw new Error("start this with a worker: TRIALBUS_ENDPOINT and TRIALBUS_TRIAL are missing");
    const assigned = parseTrial(trial); // the trial_assigned event of this trial
    for (const name of ["study", "trial", "attempt", "params", "seed", "budget", "config"]) this[name] = assigned[name];
    this.#socket.connect(endpoint);
    this.#listen();
    this.#timers.push(setInterval(() => this.#tick(), RESEND_MS));
    this.#timers.push(setInterval(() => this.#keepAlive(), TTL_MS / 3));
    this.#publish("trial_started", { host: hostname(), pid: process.pid });
  }

  /** Publish an evaluation; throws Pruned when the optimizer has told this trial to stop. */
  report(step, metrics) {
    this.#publish("evaluation_complete", { step, metrics, elapsed_s: (Date.now() - this.#began) / 1000 });
    if (this.#pruned) throw new Pruned(`trial ${this.trial} was pruned`);
    if (this.#lost) throw new Lost(`trial ${this.trial}: attempt ${this.attempt} was abandoned`);
  }

  /** Run a training in this trial, publish the end, and wait until the hub has every event. */
  async run(training) {
    try {
      await training(this);
      this.#publish("trial_finished", { state: "complete" });
    } catch (error) {
      const pruned = error instanceof Pruned;
      this.#publish("trial_finished", pruned ? { state: "pruned" } : { state: "failed", error: String(error.stack) });
      if (!pruned) process.exitCode = 1;
    }
    while (this.#outbox.length) await new Promise(resolve => (this.#acknowledged = resolve));
    await this.#send([BYE, this.#session]);
    this.#timers.forEach(clearInterval);
    this.#socket.close();
  }

  #publish(type, fields) {
    const { study, trial, attempt } = this;
    const escaped = study.replaceAll("%", "%25").replaceAll("/", "%2F").replaceAll("*", "%2A");
    const body = { type, study, trial, attempt, at: Date.now() / 1000, ...fields };
    const entry = [++this.#seq, `${type}/${escaped}/${trial}`, body];
    this.#outbox.push(entry);
    this.#post([entry]);
  }

  #post(entries) {
    if (this.#next === NOW) return; // the prune subscription must start before the first event
    const events = entries.map(([, topic, body]) => [topic, body]);
    this.#send([PUBLISH, this.#publisher, entries[0][0], events, this.#outbox[0][0]]);
  }

  #resend() {
    if (this.#outbox.length) this.#post(this.#outbox.slice(0, 512));
  }

  // Resend every frame that was not answered in time.
  #tick() {
    if (this.#unsent) return; // no connection: a welcome will follow the next one
    this.#resend();
    if (Date.now() > this.#answerBy) this.#fetch();
    if (!this.#registered) this.#keepAlive();
  }

  #keepAlive() {
    const { study, trial, attempt } = this;
    const hello = [HELLO, this.#session, "trainer", "", TTL_MS, study, trial, attempt, { host: hostname() }];
    if (!this.#lost) this.#send(this.#registered ? [PING, this.#session] : hello);
  }

  #fetch() {
    const escaped = this.study.replaceAll("%", "%25").replaceAll("/", "%2F").replaceAll("*", "%2A");
    const wait = this.#next === NOW ? 0 : WAIT_MS;
    this.#answerBy = Date.now() + wait + ANSWER_MS;
    this.#send([FETCH, ++this.#request, this.#next, [`prune/${escaped}/${this.trial}`], 512, wait]);
  }

  // One frame at a time, in order. Without a connection a send waits for one.
  #send(frame) {
    this.#unsent++;
    this.#sending = this.#sending
      .then(() => this.#socket.send(encode(frame)))
      .catch(() => {})
      .finally(() => this.#unsent--);
    return this.#sending;
  }

  async #listen() {
    for await (const [frame] of this.#socket) {
      const [op, ...fields] = decode(frame);
      if (op === WELCOME) {
        // Connected, or connected again: frames of an earlier connection are lost.
        this.#keepAlive();
        this.#fetch();
        this.#resend();
      } else if (op === ACK) {
        while (this.#outbox.length && this.#outbox[0][0] <= fields[1]) this.#outbox.shift();
        this.#acknowledged();
      } else if (op === EVENTS) {
        if (fields[3].some(record => record[4].attempt === this.attempt)) this.#pruned = true;
        if (fields[0] === this.#request) {
          const first = this.#next === NOW;
          this.#next = fields[1];
          this.#fetch();
          if (first) this.#resend();
        }
      } else if (op === SEEN) {
        this.#registered = true;
      } else if (op === REFUSED && fields[0] === SESSION_LOST) {
        this.#lost = true;
      } else if (op === REFUSED) {
        console.error(`refused: ${fields[0]} ${fields[1]}`);
      }
    }
  }
}
