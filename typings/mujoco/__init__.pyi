# SPDX-License-Identifier: Apache-2.0
# MuJoCo's classes and functions are compiled and bring no types: to pyright each may be anything.
from typing import Any

def __getattr__(name: str) -> Any: ...
