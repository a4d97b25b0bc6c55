"""What stands behind the commands of ``kerasish-lstm``, whose arguments ``cli.py`` declares.

_demo        ``demo``: what it runs and shows
_entry       ``inspect``, ``convert`` and ``verify``: their tables and exit status
_info        ``info``: versions, devices and engines
_sources     any file of LSTMs -> modules by name -> any file
_torch       torch state dicts -> modules by name -> torch state dicts
_pickles     what a torch file claims, before torch reads it
_verify      two files' modules on the same random inputs and masks, with a bound
_inspect     what a file holds, as data
"""
