"""Users, roles and permissions: the Auth service."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from loadgen.client.call import AUTH, Answered, Caller
from loadgen.history.operation import Operation
from loadgen.proto import auth_pb2
from loadgen.proto import etcd_pb2 as pb

READ, WRITE, READWRITE = auth_pb2.Permission.READ, auth_pb2.Permission.WRITE, auth_pb2.Permission.READWRITE


class AuthCalls(Caller):
    """The Auth service. ``response`` is the method's own message; most say nothing but their header."""

    def auth_enable(self) -> Operation:
        """Turn authentication on; there must be a user ``root`` with the role ``root``."""
        return self._auth("auth_enable", pb.AuthEnableRequest(), pb.AuthEnableResponse.FromString)

    def auth_disable(self) -> Operation:
        """Turn authentication off."""
        return self._auth("auth_disable", pb.AuthDisableRequest(), pb.AuthDisableResponse.FromString)

    def auth_status(self) -> Operation:
        """Ask whether authentication is on, and for the revision of its store."""
        return self._auth("auth_status", pb.AuthStatusRequest(), pb.AuthStatusResponse.FromString)

    def authenticate(self, name: str, password: str) -> Operation:
        """Ask for a token: ``response.token``, to be sent as ``token`` with every request."""
        request = pb.AuthenticateRequest(name=name, password=password)
        return self._auth("authenticate", request, pb.AuthenticateResponse.FromString)

    def _auth(self, f: str, request: Message, decode: Callable[[bytes], Answered]) -> Operation:
        """Call the method that an operation's name means: ``UserAdd`` for ``user_add``."""
        method = f.title().replace("_", "").encode()
        return self._run(AUTH + method, request.SerializeToString(), decode, f)

    # ---- users

    def user_add(self, name: str, password: str = "", *, no_password: bool = False) -> Operation:
        """Add a user; with ``no_password`` one that is known by the common name of its certificate alone."""
        options = auth_pb2.UserAddOptions(no_password=no_password)
        request = pb.AuthUserAddRequest(name=name, password=password, options=options)
        return self._auth("user_add", request, pb.AuthUserAddResponse.FromString)

    def user_get(self, name: str) -> Operation:
        """List a user's roles."""
        return self._auth("user_get", pb.AuthUserGetRequest(name=name), pb.AuthUserGetResponse.FromString)

    def user_list(self) -> Operation:
        """List the users."""
        return self._auth("user_list", pb.AuthUserListRequest(), pb.AuthUserListResponse.FromString)

    def user_delete(self, name: str) -> Operation:
        """Remove a user."""
        return self._auth("user_delete", pb.AuthUserDeleteRequest(name=name), pb.AuthUserDeleteResponse.FromString)

    def user_change_password(self, name: str, password: str) -> Operation:
        """Give a user another password; its tokens end."""
        request = pb.AuthUserChangePasswordRequest(name=name, password=password)
        return self._auth("user_change_password", request, pb.AuthUserChangePasswordResponse.FromString)

    def user_grant_role(self, name: str, role: str) -> Operation:
        """Give a user a role."""
        request = pb.AuthUserGrantRoleRequest(user=name, role=role)
        return self._auth("user_grant_role", request, pb.AuthUserGrantRoleResponse.FromString)

    def user_revoke_role(self, name: str, role: str) -> Operation:
        """Take a role from a user."""
        request = pb.AuthUserRevokeRoleRequest(name=name, role=role)
        return self._auth("user_revoke_role", request, pb.AuthUserRevokeRoleResponse.FromString)

    # ---- roles

    def role_add(self, name: str) -> Operation:
        """Add a role, which may do nothing yet."""
        return self._auth("role_add", pb.AuthRoleAddRequest(name=name), pb.AuthRoleAddResponse.FromString)

    def role_get(self, name: str) -> Operation:
        """List a role's permissions."""
        return self._auth("role_get", pb.AuthRoleGetRequest(role=name), pb.AuthRoleGetResponse.FromString)

    def role_list(self) -> Operation:
        """List the roles."""
        return self._auth("role_list", pb.AuthRoleListRequest(), pb.AuthRoleListResponse.FromString)

    def role_delete(self, name: str) -> Operation:
        """Remove a role, and take it from whoever has it."""
        return self._auth("role_delete", pb.AuthRoleDeleteRequest(role=name), pb.AuthRoleDeleteResponse.FromString)

    def role_grant_permission(
        self, name: str, permission: auth_pb2.Permission.Type, key: bytes, range_end: bytes = b""
    ) -> Operation:
        """Allow a role to ``READ``, ``WRITE`` or ``READWRITE`` a key, or the keys up to ``range_end``."""
        granted = auth_pb2.Permission(permType=permission, key=key, range_end=range_end)
        request = pb.AuthRoleGrantPermissionRequest(name=name, perm=granted)
        return self._auth("role_grant_permission", request, pb.AuthRoleGrantPermissionResponse.FromString)

    def role_revoke_permission(self, name: str, key: bytes, range_end: bytes = b"") -> Operation:
        """Take a permission back; the range must be the one that was granted."""
        request = pb.AuthRoleRevokePermissionRequest(role=name, key=key, range_end=range_end)
        return self._auth("role_revoke_permission", request, pb.AuthRoleRevokePermissionResponse.FromString)
