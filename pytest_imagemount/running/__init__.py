"""Running commands of an image, confined: the test process's side.

The helper only starts them (:mod:`..helper.run_inside`). The pipes, the time limit and the bound on the output are
here, so that the helper never waits, and so that a command ends with its test process.
"""
