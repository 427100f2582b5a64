//! What is done to header fields at the edge and on the way back. (Stub.)
