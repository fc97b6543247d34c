"""The caller of a method. Every command and query receives a Principal, so that access can depend on the caller."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["admin"]


@dataclass(frozen=True)
class Principal:
    """The authenticated caller.

    Attributes:
        tenant: The owner of the jobs and models that the caller can see.
        user: The name of the caller within the tenant.
        role: The role of the caller, which determines the allowed calls.
    """

    tenant: str
    user: str
    role: Role


# Currently, a server has only one token, so every authenticated caller is this principal.
OPERATOR = Principal(tenant="default", user="operator", role="admin")
