//! Which script or file a path means. (Stub.)
use std::sync::Arc;

use ::http::Method;

use super::Settings;
use crate::http::CanonicalPath;
use crate::upstream::Error;
use crate::upstream::files::OpenFile;

#[derive(Debug)]
pub(crate) enum Resolved {
    Script(Script),
    File(OpenFile),
    Redirect(String),
}

#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) document_root: Arc<[u8]>,
    pub(crate) filename: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) path_info: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Site {
    root: Arc<[u8]>,
}

impl Site {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { root: settings.root.as_os_str().as_encoded_bytes().into() }
    }
    pub(crate) fn resolve(&self, path: &CanonicalPath, _method: &Method) -> Result<Resolved, Error> {
        let name = path.as_str().as_bytes().to_vec();
        let document_root = Arc::clone(&self.root);
        let filename = [&document_root, name.as_slice()].concat();
        Ok(Resolved::Script(Script { document_root, filename, name, path_info: None }))
    }
    pub(crate) fn accel(&self, _target: &str) -> Result<OpenFile, Error> {
        Ok(OpenFile)
    }
    pub(crate) fn sendfile(&self, _path: &str) -> Result<OpenFile, Error> {
        Ok(OpenFile)
    }
}
