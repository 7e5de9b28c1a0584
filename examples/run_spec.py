"""Run the studies of a spec file from Python.

```
python examples/run_spec.py [SPEC]
```
"""

import sys
from pathlib import Path

from trialbus import TrialbusError
from trialbus_services import OptunaRunner

SPEC = Path(__file__).with_name("spec.yaml")


def main() -> None:
    runner = OptunaRunner(sys.argv[1] if len(sys.argv) > 1 else SPEC)
    for study in runner.run_all_studies():
        print(study.study_name, study.best_value, study.best_params)


if __name__ == "__main__":
    try:
        main()
    except TrialbusError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
