//! What frameworks make of PHP's sessions: their cookies, their keys, the layers around their data.
