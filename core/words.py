"""Numbers in words."""


def size(count: float) -> str:
    """Bytes; 1 GB is 10^9 of them."""
    unit, name = (1e9, "GB") if count >= 1e8 else (1e6, "MB") if count >= 1e5 else (1e3, "kB")
    return f"{count / unit:,.2f} {name}"
