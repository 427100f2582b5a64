//! The check `address`: only clients from certain networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Refused, Verdict};
use crate::http::Answer;

/// Networks that may pass, and networks that may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Empty: all that are not denied.
    pub(crate) allow: Vec<IpNet>,
    /// Goes before `allow`.
    pub(crate) deny: Vec<IpNet>,
}

impl Address {
    /// `ip` is the client's own, or the one a trusted proxy named.
    pub(super) fn examine(&self, ip: IpAddr) -> Verdict {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&ip));
        if !within(&self.deny) && (self.allow.is_empty() || within(&self.allow)) {
            return Verdict::Pass(None);
        }
        Verdict::Refuse(Refused::new(Answer::Forbidden, "address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_network_is_refused_even_inside_an_allowed_one() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let address = Address { allow: nets(&["10.0.0.0/8", "2001:db8::/32"]), deny: nets(&["10.1.0.0/16"]) };
        let passes = |ip: &str| matches!(address.examine(ip.parse().unwrap()), Verdict::Pass(None));
        assert!(passes("10.0.0.1") && passes("2001:db8::1"));
        assert!(!passes("10.1.0.1") && !passes("192.0.2.1") && !passes("::1"));
        let open = Address { allow: Vec::new(), deny: nets(&["192.0.2.0/24"]) };
        assert!(matches!(open.examine("10.0.0.1".parse().unwrap()), Verdict::Pass(None)));
    }
}
