"""What stands behind ``kerasish-lstm inspect``, ``convert`` and ``verify``.

_entry       the commands: their arguments, tables and exit status
_sources     any file of LSTMs -> modules by name -> any file
_verify      two files' modules on the same random inputs and masks, with a bound
_inspect     what a file holds, as data
"""
