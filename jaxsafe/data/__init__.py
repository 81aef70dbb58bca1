# SPDX-License-Identifier: Apache-2.0
"""Stores of experience and their file formats.

Parts, each of which can be used alone:
  replay                       a ring of transitions on the device
  trajectories, hdf5           offline episodes with costs, in DSRL's HDF5 format
  dsrl, filters                the constants of DSRL's tasks; its pre-processing
  generate, behaviours         such files made: `scripted` behaviours in point worlds, on robots
                               `gait`, or `of_policy` once one is trained
  image_episodes               episodes of images and actions
  images, image_files          sets of labelled images; readers of IDX and CIFAR's archives
  preferences, preference_formats
                               pairs and labelled answers from JSON
  text                         words as the Penn Treebank has them
"""
