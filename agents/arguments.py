"""Refuse constructor arguments that no training could use."""


def check_share(name: str, share: int | float) -> None:
    """Refuse what is not a share.

    Raises:
        ValueError: it is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be in [0, 1]; got {share}")


def check_least(least: int | float, **numbers: int | float) -> None:
    """Refuse what is too small.

    Raises:
        ValueError: one of them is below ``least``; names it.
    """
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name} must be at least {least}; got {number}")


def check_positive(**numbers: int | float | None) -> None:
    """Refuse what is not above 0; ``None`` stands for no number at all.

    Raises:
        ValueError: one of them is 0 or less; names it.
    """
    for name, number in numbers.items():
        if number is not None and number <= 0:
            raise ValueError(f"{name} must be positive; got {number}")
