"""The command line."""

import gc

# Starting makes ten thousands of objects that live to the end and hardly any garbage: at Python's threshold of 700 looking for it takes 7 of 100 ms.
gc.set_threshold(50_000, 20, 20)
