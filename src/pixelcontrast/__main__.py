"""`python -m pixelcontrast`."""

from pixelcontrast.cli import main

if __name__ == "__main__":
    main()
