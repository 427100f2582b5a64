//! Files of the legacy application, served by the gateway itself. (Stub.)
