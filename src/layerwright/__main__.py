"""`python -m layerwright`, and the installed command. Ctrl-C while Python still loads ends it without a word, as it does later."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    quiet = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if quiet:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from layerwright.cli.main import main as run

    if quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
