//! Google's predefined roles for objects, and the permissions that they grant.
//!
//! <https://cloud.google.com/storage/docs/access-control/iam-roles>

use std::fmt;
use std::str::FromStr;

/// A predefined role, without Google's prefix `roles/storage.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Can create objects, but not read, replace or delete them.
    ObjectCreator,
    /// Can read objects.
    ObjectViewer,
    /// Can create, read, replace and delete objects.
    ObjectUser,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::ObjectCreator, Self::ObjectViewer, Self::ObjectUser];

    /// The role's name: `objectCreator`, `objectViewer` or `objectUser`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ObjectCreator => "objectCreator",
            Self::ObjectViewer => "objectViewer",
            Self::ObjectUser => "objectUser",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The text is not the name of a [`Role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is objectCreator, objectViewer or objectUser")]
pub struct RoleError;

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(name: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or(RoleError)
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    create: bool,
    get: bool,
    delete: bool,
}

/// A single permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// `storage.objects.create`: needed for a PUT.
    Create,
    /// `storage.objects.get`: needed for a GET or a HEAD.
    Get,
    /// `storage.objects.delete`: needed for a DELETE, and for a PUT that replaces an object.
    Delete,
}

impl Permission {
    /// Google's name of the permission.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "storage.objects.create",
            Self::Get => "storage.objects.get",
            Self::Delete => "storage.objects.delete",
        }
    }
}

impl Permissions {
    /// Every permission.
    pub const ALL: Self = Self {
        create: true,
        get: true,
        delete: true,
    };

    /// The permissions that these roles grant together.
    pub fn of_roles(roles: &[Role]) -> Self {
        let is_user = roles.contains(&Role::ObjectUser);
        Self {
            create: is_user || roles.contains(&Role::ObjectCreator),
            get: is_user || roles.contains(&Role::ObjectViewer),
            delete: is_user,
        }
    }

    /// Whether the set contains a permission.
    pub const fn has(self, permission: Permission) -> bool {
        match permission {
            Permission::Create => self.create,
            Permission::Get => self.get,
            Permission::Delete => self.delete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_grant_what_google_documents_and_nothing_else() {
        use Permission::{Create, Delete, Get};
        for (roles, granted) in [
            (vec![], vec![]),
            (vec![Role::ObjectCreator], vec![Create]),
            (vec![Role::ObjectViewer], vec![Get]),
            (
                vec![Role::ObjectCreator, Role::ObjectViewer],
                vec![Create, Get],
            ),
            (vec![Role::ObjectUser], vec![Create, Get, Delete]),
        ] {
            let permissions = Permissions::of_roles(&roles);
            for permission in [Create, Get, Delete] {
                assert_eq!(
                    permissions.has(permission),
                    granted.contains(&permission),
                    "{roles:?}: {}",
                    permission.as_str()
                );
            }
        }
    }

    #[test]
    fn every_role_parses_from_its_name() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!("objectAdmin".parse::<Role>(), Err(RoleError));
        assert_eq!("ObjectUser".parse::<Role>(), Err(RoleError));
    }
}
