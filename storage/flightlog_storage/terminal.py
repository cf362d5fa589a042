"""Text that others wrote, made safe for a terminal."""

__all__ = ("plain", "safe")

_JOINER = "\u200d"  # Between the parts of some emoji; harmless.


def plain(text: str) -> str:
    """Return the text with what would steer a terminal made visible, on one line."""
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char == _JOINER
        else char.encode("unicode_escape").decode()
        for char in text
    )


def safe(text: str) -> str:
    """Return the text so, but with its lines and tabs."""
    lines = (line.split("\t") for line in text.split("\n"))
    return "\n".join("\t".join(map(plain, parts)) for parts in lines)
