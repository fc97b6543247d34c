"""The caller of a method. Every command and query receives a Principal, so that access can depend on it."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["admin"]


@dataclass(frozen=True)
class Principal:
    """The authenticated caller.

    Attributes:
        tenant: Who owns the jobs and models that the caller can see.
        user: The name of the caller within the tenant.
        role: What the caller may do.
    """

    tenant: str
    user: str
    role: Role


# A server has one token today, so every authenticated caller is this principal.
OPERATOR = Principal(tenant="default", user="operator", role="admin")
