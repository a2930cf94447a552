//! What an account may do with objects: Google's predefined roles, and the permissions that they are made of.
//! Who an account is, is left to `signature`; which request needs what, to the store.
//!
//! <https://cloud.google.com/storage/docs/access-control/iam-roles>

use clap::ValueEnum;

/// A predefined role of Google's, as in `roles/storage.objectCreator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
pub enum Role {
    /// May make objects, and neither see nor replace nor remove them.
    ObjectCreator,
    /// May see objects.
    ObjectViewer,
    /// May do all of it.
    ObjectUser,
}

/// What an account may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    create: bool,
    get: bool,
    delete: bool,
}

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// `storage.objects.create`: a PUT.
    Create,
    /// `storage.objects.get`: a GET or a HEAD.
    Get,
    /// `storage.objects.delete`: a DELETE, and a PUT that replaces an object.
    Delete,
}

impl Permission {
    /// Its name at Google.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "storage.objects.create",
            Self::Get => "storage.objects.get",
            Self::Delete => "storage.objects.delete",
        }
    }
}

impl Permissions {
    /// All of them.
    pub const ALL: Self = Self {
        create: true,
        get: true,
        delete: true,
    };

    /// What these roles permit together.
    pub fn of_roles(roles: &[Role]) -> Self {
        let is_user = roles.contains(&Role::ObjectUser);
        Self {
            create: is_user || roles.contains(&Role::ObjectCreator),
            get: is_user || roles.contains(&Role::ObjectViewer),
            delete: is_user,
        }
    }

    /// Whether this is permitted.
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
    fn roles_permit_what_google_says_and_nothing_else() {
        use Permission::{Create, Delete, Get};
        for (roles, permitted) in [
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
                    permitted.contains(&permission),
                    "{roles:?}: {}",
                    permission.name()
                );
            }
        }
    }
}
