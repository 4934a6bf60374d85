"""From the update rules of SGD and Adam to the columns of `optlaws`: derivations, theorems and an oracle for the code.

`optlaws` never imports this package. `python -m theory` writes the index, `python -m theory --build DIR` the page.
"""
