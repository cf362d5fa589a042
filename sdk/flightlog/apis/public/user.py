"""A user, who is no more than a name."""

__all__ = ("User",)


class User(str):
    """A user's name; `name` and `username` are it too. As in W&B, but also a str."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return str(self)

    @property
    def username(self) -> str:
        return str(self)

    @property
    def email(self) -> None:
        """None: nobody has an account."""
