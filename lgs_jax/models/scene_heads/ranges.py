"""Checks of values that must lie in a range."""


def check_positive(**values: float) -> None:
    """Raises ValueError if a value is not above 0; values by name."""
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name}={value} must be positive")


def check_between(
    name: str, value: float, low_name: str, low: float, high_name: str, high: float
) -> None:
    """Raises ValueError unless low < value < high."""
    if not low < value < high:
        raise ValueError(f"{name}={value} must lie between {low_name} and {high_name}")


def check_depths(near: float, far: float, initial_depth: float | None) -> None:
    """Raises ValueError unless 0 < near < initial_depth (if it is given) < far."""
    check_positive(near=near)
    if near >= far:
        raise ValueError(f"near={near} must be smaller than far={far}")
    if initial_depth is not None:
        check_between("initial_depth", initial_depth, f"near={near}", near, f"far={far}", far)
