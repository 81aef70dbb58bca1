# SPDX-License-Identifier: Apache-2.0
"""What a sweep starts, without the seconds a real run takes: it writes what it is asked to.

`--lr` decides: 1 fails with a last line, 2 waits to be stopped, everything else finishes. A resumed
one finishes.
"""

import json
import pathlib
import signal
import sys
import time


def main() -> int:
    given = dict(argument[2:].partition("=")[::2] for argument in sys.argv[1:])
    out = pathlib.Path(given["out"])
    out.mkdir(exist_ok="resume" in given)
    (out / "config.json").write_text(json.dumps(sys.argv[1:]))
    if given["lr"] == "1.0":
        print("a traceback\nerror: it broke\n")
        return 3
    if given["lr"] == "2.0" and "resume" not in given:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
        (out / "waits").touch()
        time.sleep(60)
    body = {"status": "complete", "results": [{"method": "a", "x_per_seed": [1.0, 2.0]}]}
    (out / "summary.json").write_text(json.dumps(body))
    return 0


if __name__ == "__main__":
    sys.exit(main())
