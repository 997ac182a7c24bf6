"""Users, roles and permissions: the Auth service."""

from __future__ import annotations

from loadgen.client.call import Caller
from loadgen.history.operation import Operation
from loadgen.proto import auth_pb2
from loadgen.proto import etcd_pb2 as pb

_AUTH = b"/etcdserverpb.Auth/"
AUTHENTICATE = _AUTH + b"Authenticate"
READ, WRITE, READWRITE = auth_pb2.Permission.READ, auth_pb2.Permission.WRITE, auth_pb2.Permission.READWRITE


class AuthCalls(Caller):
    """The Auth service. ``response`` is the method's own message; most say nothing but their header."""

    def auth_enable(self) -> Operation:
        """Asks for a name and a password from now on; there must be a user ``root`` with the role ``root``."""
        return self._run(_AUTH + b"AuthEnable", b"", pb.AuthEnableResponse.FromString, "auth_enable")

    def auth_disable(self) -> Operation:
        """Lets everybody do everything again."""
        return self._run(_AUTH + b"AuthDisable", b"", pb.AuthDisableResponse.FromString, "auth_disable")

    def auth_status(self) -> Operation:
        """Says whether authentication is on, and the revision of its store."""
        return self._run(_AUTH + b"AuthStatus", b"", pb.AuthStatusResponse.FromString, "auth_status")

    def authenticate(self, name: str, password: str) -> Operation:
        """Asks for a token: ``response.token``, to be sent as ``token`` with every request."""
        request = pb.AuthenticateRequest(name=name, password=password).SerializeToString()
        return self._run(AUTHENTICATE, request, pb.AuthenticateResponse.FromString, "authenticate")

    # ---- users

    def user_add(self, name: str, password: str = "", *, no_password: bool = False) -> Operation:
        """Add a user; with ``no_password`` one that is known by the common name of its certificate alone."""
        options = auth_pb2.UserAddOptions(no_password=no_password)
        request = pb.AuthUserAddRequest(name=name, password=password, options=options).SerializeToString()
        return self._run(_AUTH + b"UserAdd", request, pb.AuthUserAddResponse.FromString, "user_add")

    def user_get(self, name: str) -> Operation:
        """List a user's roles."""
        request = pb.AuthUserGetRequest(name=name).SerializeToString()
        return self._run(_AUTH + b"UserGet", request, pb.AuthUserGetResponse.FromString, "user_get")

    def user_list(self) -> Operation:
        """List the users."""
        return self._run(_AUTH + b"UserList", b"", pb.AuthUserListResponse.FromString, "user_list")

    def user_delete(self, name: str) -> Operation:
        """Remove a user."""
        request = pb.AuthUserDeleteRequest(name=name).SerializeToString()
        return self._run(_AUTH + b"UserDelete", request, pb.AuthUserDeleteResponse.FromString, "user_delete")

    def user_change_password(self, name: str, password: str) -> Operation:
        """Give a user another password; its tokens end."""
        request = pb.AuthUserChangePasswordRequest(name=name, password=password).SerializeToString()
        decode = pb.AuthUserChangePasswordResponse.FromString
        return self._run(_AUTH + b"UserChangePassword", request, decode, "user_change_password")

    def user_grant_role(self, name: str, role: str) -> Operation:
        """Give a user a role."""
        request = pb.AuthUserGrantRoleRequest(user=name, role=role).SerializeToString()
        return self._run(_AUTH + b"UserGrantRole", request, pb.AuthUserGrantRoleResponse.FromString, "user_grant_role")

    def user_revoke_role(self, name: str, role: str) -> Operation:
        """Take a role from a user."""
        request = pb.AuthUserRevokeRoleRequest(name=name, role=role).SerializeToString()
        decode = pb.AuthUserRevokeRoleResponse.FromString
        return self._run(_AUTH + b"UserRevokeRole", request, decode, "user_revoke_role")

    # ---- roles

    def role_add(self, name: str) -> Operation:
        """Add a role, which may do nothing yet."""
        request = pb.AuthRoleAddRequest(name=name).SerializeToString()
        return self._run(_AUTH + b"RoleAdd", request, pb.AuthRoleAddResponse.FromString, "role_add")

    def role_get(self, name: str) -> Operation:
        """List a role's permissions."""
        request = pb.AuthRoleGetRequest(role=name).SerializeToString()
        return self._run(_AUTH + b"RoleGet", request, pb.AuthRoleGetResponse.FromString, "role_get")

    def role_list(self) -> Operation:
        """List the roles."""
        return self._run(_AUTH + b"RoleList", b"", pb.AuthRoleListResponse.FromString, "role_list")

    def role_delete(self, name: str) -> Operation:
        """Remove a role, and take it from whoever has it."""
        request = pb.AuthRoleDeleteRequest(role=name).SerializeToString()
        return self._run(_AUTH + b"RoleDelete", request, pb.AuthRoleDeleteResponse.FromString, "role_delete")

    def role_grant_permission(
        self, name: str, permission: auth_pb2.Permission.Type, key: bytes, range_end: bytes = b""
    ) -> Operation:
        """Lets a role ``READ``, ``WRITE`` or ``READWRITE`` a key, or the keys up to ``range_end``."""
        granted = auth_pb2.Permission(permType=permission, key=key, range_end=range_end)
        request = pb.AuthRoleGrantPermissionRequest(name=name, perm=granted).SerializeToString()
        decode = pb.AuthRoleGrantPermissionResponse.FromString
        return self._run(_AUTH + b"RoleGrantPermission", request, decode, "role_grant_permission")

    def role_revoke_permission(self, name: str, key: bytes, range_end: bytes = b"") -> Operation:
        """Take a permission back; the range must be the one that was granted."""
        request = pb.AuthRoleRevokePermissionRequest(role=name, key=key, range_end=range_end).SerializeToString()
        decode = pb.AuthRoleRevokePermissionResponse.FromString
        return self._run(_AUTH + b"RoleRevokePermission", request, decode, "role_revoke_permission")
