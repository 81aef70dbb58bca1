# SPDX-License-Identifier: Apache-2.0
"""Writes one HTML page over run folders: tables with intervals, curves, pictures, commands.

The page holds all it shows and fetches nothing. A run that is unfinished or damaged is listed with
the reason.
"""

from absl import flags

from jaxsafe.core import config as config_lib
from jaxsafe.core import flags as flags_lib
from jaxsafe.core.pages import page


def _options(flag_values: flags.FlagValues) -> page.PageOptions:
    options = flags_lib.overlay(page.PageOptions(), "", flag_values)
    config_lib.validate(options)
    page.check_target(options)
    return options


def main(argv: list[str]) -> int:
    """Writes the page and says what is on it."""
    options = _options(flags.FLAGS)
    for line in page.headline(*page.write(options)):
        print(line)
    print(f"page: {options.out}")
    return 0


if __name__ == "__main__":
    flags_lib.define_config_flags(page.PageOptions, "")
    flags_lib.parse_and_run(main, check=_options)
