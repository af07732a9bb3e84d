//! What a start listens on: taken over where the process was started with it, else bound.

use std::path::PathBuf;

use super::BootError;
use super::inherit::Inherited;
use super::pid_file::PidFile;
use super::sockets::{HandedOver, Sockets};
use crate::config::{AdminAddress, Config};
use crate::control::admin;
use crate::control::compile::BoundListener;

/// What the listeners of `config` are bound with, in its order.
pub(super) fn bind_all(
    config: &Config,
    sockets: &mut Sockets,
    inherited: &mut Inherited,
) -> Result<Vec<BoundListener>, BootError> {
    let listeners = config.listeners().iter();
    let bound = listeners.map(|listener| {
        let (name, address) = (&listener.name, listener.address);
        let bound = match inherited.listener(name, address) {
            Some((address, own)) => {
                log::info!(listener = name, address:%, sockets = own.len(); "handed over");
                sockets.adopt(address, own)
            }
            None => sockets.open(address),
        };
        bound.map_err(|source| BootError::Bind {
            name: name.clone(),
            address,
            source,
        })
    });
    bound.collect()
}

/// Where the admin API answers; `None` where it is off.
pub(super) fn open_admin(
    address: &AdminAddress,
    sockets: &mut Sockets,
    inherited: &mut Inherited,
) -> Result<Option<admin::Bound>, BootError> {
    let admin = match inherited.admin(address) {
        Some(HandedOver { socket, is_kept }) => {
            let noted = match is_kept {
                true => sockets.note_kept(&socket),
                false => Ok(()),
            };
            noted.and_then(|()| admin::Bound::inherited(address, socket, is_kept).map(Some))
        }
        None => admin::Bound::open(address),
    };
    admin.map_err(|source| BootError::Admin {
        address: address.clone(),
        source,
    })
}

/// The file of `[runtime] pid_file`, not in its place yet.
pub(super) fn pid_file(path: Option<&PathBuf>) -> Result<Option<PidFile>, BootError> {
    let prepared = path.map(|path| {
        PidFile::prepare(path).map_err(|source| BootError::PidFile {
            path: path.clone(),
            source,
        })
    });
    prepared.transpose()
}
