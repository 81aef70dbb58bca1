# SPDX-License-Identifier: Apache-2.0
"""What surrounds the mathematics: flags, run folders, loops, checkpoints, statistics, plots."""
