"""What stands behind ``kerasish-lstm inspect``, ``convert`` and ``verify``.

_entry       the commands: their arguments, tables and exit status
_sources     any file of LSTMs -> modules by name -> any file
_torch       torch state dicts -> modules by name -> torch state dicts
_pickles     what a torch file claims, before torch reads it
_verify      two files' modules on the same random inputs and masks, with a bound
_inspect     what a file holds, as data
"""
