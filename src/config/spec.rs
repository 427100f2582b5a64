//! Every key of routes.toml: its type, its default and what it means, said once.
//!
//! Readers take a key's default from here, unknown keys are found and corrected from here, and
//! `docs/reference/routes.md` is written from here: there is no second list of keys. What a value
//! must look like beyond its type is the reader's to say.

use crate::upstream::fastcgi::deny::DEFAULT_DENY;

/// A table of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// As it is written: `[server.limits]`.
    pub(super) title: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes the reference"))]
    pub(super) meaning: &'static str,
    /// Lists of keys, so that sections can share some.
    pub(super) keys: &'static [&'static [Key]],
}

/// One key of a section.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes the reference"))]
    pub(super) meaning: &'static str,
}

/// What a key holds.
#[derive(Debug)]
pub(super) enum Kind {
    /// A value, its type named for readers of the reference.
    Value(
        #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes the reference"))] &'static str,
    ),
    /// A table or tables, of one of these sections.
    Section(&'static [&'static Section]),
    /// Names of the file's own, each with a string.
    Names(
        #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes the reference"))] &'static str,
    ),
    /// Something that a later version will have: how it is written, and what it is.
    Later(&'static str, &'static str),
}

/// What holds when a key is not there.
#[derive(Debug)]
pub(super) enum Default {
    /// The section is not complete without it.
    Required,
    /// Nothing.
    Absent,
    /// This value, as it would be written.
    Value(&'static str),
    /// This list of strings.
    List(&'static [&'static str]),
    /// What follows from something else, in words.
    Derived(
        #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes the reference"))] &'static str,
    ),
}

impl Section {
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static Key> + Clone {
        self.keys.iter().copied().flatten()
    }

    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }
}

/// All sections, each after the one that holds it.
pub(super) fn sections() -> Vec<&'static Section> {
    fn walk(section: &'static Section, found: &mut Vec<&'static Section>) {
        if found.iter().any(|known| std::ptr::eq(*known, section)) {
            return;
        }
        found.push(section);
        for key in section.keys() {
            if let Kind::Section(inner) = key.kind {
                inner.iter().for_each(|section| walk(section, found));
            }
        }
    }
    let mut found = Vec::new();
    walk(&FILE, &mut found);
    found
}

const fn value(name: &'static str, kind: &'static str, default: Default, meaning: &'static str) -> Key {
    Key { name, kind: Kind::Value(kind), default, meaning }
}

const fn section(name: &'static str, sections: &'static [&'static Section], meaning: &'static str) -> Key {
    Key { name, kind: Kind::Section(sections), default: Default::Absent, meaning }
}

const fn later(name: &'static str, shown: &'static str, feature: &'static str) -> Key {
    Key { name, kind: Kind::Later(shown, feature), default: Default::Absent, meaning: feature }
}

const DURATION: &str = "duration";
const SIZE: &str = "size";
const NUMBER: &str = "number";
const BOOL: &str = "true or false";
const STRING: &str = "string";
const PATH: &str = "path";

pub(super) static FILE: Section = Section {
    title: "routes.toml",
    meaning: "The file as a whole.",
    keys: &[&[
        section("listen", &[&LISTEN], "Where the gateway listens."),
        section("server", &[&SERVER], "The edge: workers, trusted proxies, limits and deadlines of clients."),
        section("upstream", &[&PHP, &HTTP], "Named things outside the process that can serve a side."),
        section("handler", &[&WECHAT_LOGIN], "What built-in handlers need to know."),
        section("defaults", &[&DEFAULTS], "What every route inherits."),
        section("route", &[&ROUTE], "One rule each: what it matches, its two sides, who serves."),
        section("group", &[&GROUP], "Routes under one prefix that share what the group says."),
        section("trace", &[&TRACE], "Traces of requests, for a collector; without it there are none."),
        later("tls", "[[tls]]", "TLS is"),
        section(
            "check",
            &[&ADDRESS, &SESSION, &SIGNATURE, &JWT, &FORWARD],
            "Named conditions that routes demand of a request, before a side sees it.",
        ),
    ]],
};

pub(super) static LISTEN: Section = Section {
    title: "[listen]",
    meaning: "Where the gateway listens. Cannot change while it runs.",
    keys: &[&[
        value("http", "address or list of addresses", Default::Required, "Addresses, `host:port`, that clients reach."),
        value(
            "admin",
            "address",
            Default::Absent,
            "Address of the metrics, the API and the dashboard; without it there are none. Keep it private.",
        ),
        value(
            "admin_token",
            "`{ env = \"NAME\" }` or `{ file = \"path\" }`",
            Default::Derived("made at the start, and shown there"),
            "What an operator sends to flip a route by the admin port, and to read its API from another machine: 16 characters or more.",
        ),
        later("https", "listen.https", "TLS is"),
    ]],
};

pub(super) static TRACE: Section = Section {
    title: "[trace]",
    meaning: "Every request gets a trace id, which its sides (`traceparent`) and the access log are told. The spans of a share \
              of them go to a collector, as OTLP over HTTP. Cannot change while it runs.",
    keys: &[&[
        value("endpoint", "address", Default::Required, "The collector: `http://host:port`; `/v1/traces` is added."),
        value(
            "sample",
            "percentage",
            Default::Value("\"1%\""),
            "How many requests are recorded; where a trusted proxy sent a `traceparent`, its flag decides instead.",
        ),
    ]],
};

pub(super) static SERVER: Section = Section {
    title: "[server]",
    meaning: "The edge itself.",
    keys: &[&[
        value(
            "workers",
            NUMBER,
            Default::Value("0"),
            "Threads that serve; 0: one per core. Cannot change while it runs.",
        ),
        value(
            "trusted_proxies",
            "list of networks",
            Default::Value("[]"),
            "Networks (CIDR) of proxies whose `X-Forwarded-*` fields are believed.",
        ),
        value(
            "drain",
            DURATION,
            Default::Value("\"30s\""),
            "How long requests in flight get when the gateway is told to stop.",
        ),
        value("reveal", BOOL, Default::Value("false"), "Adds `X-Strangler-Side` to answers: which side gave them."),
        value(
            "access_log",
            "`\"stdout\"`, `\"off\"` or path",
            Default::Value("\"stdout\""),
            "Where one line for each exchange goes. Cannot change while it runs.",
        ),
        section("limits", &[&LIMITS], "How much a client may send."),
        section("timeouts", &[&TIMEOUTS], "How long a client may take."),
    ]],
};

pub(super) static LIMITS: Section = Section {
    title: "[server.limits]",
    meaning: "How much a client may send.",
    keys: &[&[
        value("header_bytes", SIZE, Default::Value("\"32KiB\""), "Bytes of a request's head; more is 431."),
        value("headers", NUMBER, Default::Value("100"), "Header lines of a request; more is 431."),
        value("uri_bytes", SIZE, Default::Value("\"8KiB\""), "Bytes of a request's target; more is 414."),
        value(
            "body_bytes",
            SIZE,
            Default::Value("\"8MiB\""),
            "Bytes of a request's body; more is 413. A route may say otherwise.",
        ),
        value(
            "connections",
            NUMBER,
            Default::Derived("from the limit on open files"),
            "Connections of clients open at once, over all workers.",
        ),
        value(
            "connections_per_client",
            NUMBER,
            Default::Value("256"),
            "Connections open at once from one address that is not a trusted proxy.",
        ),
        later("streams", "streams", "HTTP/2 is"),
    ]],
};

pub(super) static TIMEOUTS: Section = Section {
    title: "[server.timeouts]",
    meaning: "How long a client may take.",
    keys: &[&[
        value(
            "header",
            DURATION,
            Default::Value("\"10s\""),
            "A request's head must be complete within this; later is 408.",
        ),
        value(
            "body_gap",
            DURATION,
            Default::Value("\"30s\""),
            "Longest silence inside a request's body; longer is 408.",
        ),
        value(
            "write_gap",
            DURATION,
            Default::Value("\"30s\""),
            "Longest time a client may take no bytes of its answer; then the connection ends.",
        ),
        value("idle", DURATION, Default::Value("\"75s\""), "How long a connection may wait for its next request."),
        value(
            "requests_per_connection",
            NUMBER,
            Default::Value("10000"),
            "Requests on one connection before it is closed.",
        ),
        value(
            "connection_age",
            DURATION,
            Default::Value("\"1h\""),
            "Age at which a connection is closed after its current request.",
        ),
        later("tls", "tls", "TLS is"),
    ]],
};

pub(super) static PHP: Section = Section {
    title: "[upstream.NAME] with `fastcgi`",
    meaning: "A PHP-FPM pool.",
    keys: &[&[
        value("fastcgi", "address", Default::Required, "Where PHP-FPM listens: `unix:/path` or `host:port`."),
        value("root", PATH, Default::Required, "The application's public folder."),
        value("index", STRING, Default::Value("\"index.php\""), "The front controller, relative to `root`."),
        value(
            "connections",
            NUMBER,
            Default::Value("8"),
            "Requests in PHP at once, for the whole gateway; keep it below the pool's `pm.max_children`.",
        ),
        value(
            "queue",
            DURATION,
            Default::Value("\"10s\""),
            "How long a request may wait for a PHP process; then 503 with `Retry-After`.",
        ),
        value("queue_length", NUMBER, Default::Derived("4 × `connections`"), "How many may wait; more is 503 at once."),
        value(
            "keepalive",
            "`\"off\"` or number",
            Default::Value("\"off\""),
            "Idle connections kept. Each occupies a PHP process; given up at once when another request waits.",
        ),
        value("connect", DURATION, Default::Value("\"1s\""), "How long connecting may take."),
        value("first_byte", DURATION, Default::Value("\"60s\""), "How long PHP may take to begin its answer."),
        value("between_bytes", DURATION, Default::Value("\"60s\""), "Longest silence inside an answer."),
        value(
            "try_files",
            BOOL,
            Default::Value("true"),
            "A file under `root` that is not PHP is served by the gateway; everything else goes to PHP.",
        ),
        Key {
            name: "params",
            kind: Kind::Names("string, `{ env = \"NAME\" }` or `{ file = \"path\" }`"),
            default: Default::Absent,
            meaning: "Further FastCGI parameters, seen by PHP in `$_SERVER`.",
        },
        value(
            "on_client_abort",
            "`\"close\"` or `\"finish\"`",
            Default::Value("\"close\""),
            "What becomes of a PHP request whose client left: PHP is let notice, or is read to its end.",
        ),
        later("status", "status", "reading a pool's own status page is"),
        section("spool", &[&SPOOL], "Room for bodies of unknown length, which PHP cannot be sent."),
        value(
            "deny",
            "list of patterns",
            Default::List(DEFAULT_DENY),
            "Files that are never served; a list here replaces the default.",
        ),
        value(
            "php",
            "`\"index\"` or `\"files\"`",
            Default::Value("\"index\""),
            "Which scripts run: the front controller alone, or any existing `.php` under `root`.",
        ),
        Key {
            name: "internal",
            kind: Kind::Names("path"),
            default: Default::Absent,
            meaning: "Prefixes that `X-Accel-Redirect` may name, and the folders they stand for.",
        },
        value(
            "symlinks",
            "list of paths",
            Default::Value("[]"),
            "Folders outside `root` that symlinks under it may lead to.",
        ),
        section("spawn", &[&SPAWN], "Lets the gateway start and supervise php-fpm itself."),
    ]],
};

pub(super) static SPOOL: Section = Section {
    title: "[upstream.NAME.spool]",
    meaning: "Request bodies of unknown length are kept here until they are complete.",
    keys: &[&[
        value("memory", SIZE, Default::Value("\"128KiB\""), "Up to this a body stays in memory."),
        value("disk", SIZE, Default::Value("\"1GiB\""), "Room on disk for all larger ones together."),
    ]],
};

pub(super) static SPAWN: Section = Section {
    title: "[upstream.NAME.spawn]",
    meaning: "The gateway starts php-fpm on the address of `fastcgi`, for development and containers. Editing `children`, the \
              address, or a timeout beyond five minutes starts php-fpm anew, which can lose requests; no other edit does.",
    keys: &[&[value("children", NUMBER, Default::Required, "PHP processes (`pm.max_children`).")]],
};

pub(super) static HTTP: Section = Section {
    title: "[upstream.NAME] with `http`",
    meaning: "An HTTP service: one server or several.",
    keys: &[&[
        value("http", "address or list of addresses", Default::Required, "`http://host:port` or `unix:/path`."),
        value("connect", DURATION, Default::Value("\"2s\""), "How long connecting may take."),
        value("first_byte", DURATION, Default::Value("\"60s\""), "How long the service may take to begin its answer."),
        value("between_bytes", DURATION, Default::Value("\"60s\""), "Longest silence inside an answer."),
        value("idle", DURATION, Default::Value("\"60s\""), "How long an unused connection is kept."),
        value(
            "balance",
            "`\"p2c\"`",
            Default::Value("\"p2c\""),
            "Which server gets a request: of two at random, the less busy.",
        ),
        value(
            "host",
            "`\"keep\"` or name",
            Default::Value("\"keep\""),
            "The `Host` that the service is sent: the client's, or always this one.",
        ),
        later("health", "health", "health probing is"),
    ]],
};

pub(super) static WECHAT_LOGIN: Section = Section {
    title: "[handler.wechat-login]",
    meaning: "The built-in handler that logs in users of a WeChat mini program, [guide](../guide/wechat.md). A route names \
              it with `new = \"wechat-login\"`.",
    keys: &[&[
        value("session", "name", Default::Required, "The session check in whose store logins begin sessions."),
        value("appid", STRING, Default::Required, "The mini program's."),
        value(
            "secret",
            "`{ env = \"NAME\" }` or `{ file = \"path\" }`",
            Default::Required,
            "The mini program's AppSecret.",
        ),
        value("api", "address", Default::Value("\"https://api.weixin.qq.com\""), "Where WeChat is asked."),
        value("connect", DURATION, Default::Value("\"1s\""), "How long connecting to WeChat may take."),
        value("timeout", DURATION, Default::Value("\"3s\""), "How long WeChat may take in all."),
        value(
            "user",
            "`\"openid\"` or `\"unionid\"`",
            Default::Value("\"openid\""),
            "Who the user is: in this mini program, or in all applications of its owner.",
        ),
        value("idle", DURATION, Default::Value("\"2h\""), "How long a session lives unused."),
        value("lifetime", DURATION, Default::Value("\"30d\""), "How long a session lives, however much it is used."),
    ]],
};

/// What every kind of check has.
const KIND: Key = value("kind", "word", Default::Required, "What is checked: the word in this heading.");

pub(super) static ADDRESS: Section = Section {
    title: "[check.NAME] with `kind = \"address\"`",
    meaning: "Only clients from certain networks pass. A client behind a trusted proxy is whom that proxy names.",
    keys: &[&[
        KIND,
        value("allow", "list of networks", Default::Value("[]"), "Networks (CIDR) or addresses that pass; none: all."),
        value("deny", "list of networks", Default::Value("[]"), "Networks that do not, also where `allow` has them."),
    ]],
};

pub(super) static SESSION: Section = Section {
    title: "[check.NAME] with `kind = \"session\"`",
    meaning: "Only clients with a session in which a user is logged in pass. Both sides are told who it is: handlers by \
              the `Identity` extension, upstreams by `X-Strangler-User`, `X-Strangler-Session` and one header for each field.",
    keys: &[
        &[
            KIND,
            value(
                "store",
                "address or secret",
                Default::Value("\"memory\""),
                "Where sessions are: `\"memory\"`; `redis://host:6379/0`, `rediss://…` (TLS), `redis+unix:///path?db=0`, \
             `redis-sentinel://host:26379,…/NAME/0`, `redis-cluster://host:7000,…`; `php-files:/path` or, with `N` levels of \
             folders, `php-files:N;/path`; with `preset = \"wordpress\"` `mysql://user@host:3306/NAME`. An address with a password is a secret: `{ env = \"NAME\" }` or `{ file = \"path\" }`.",
            ),
            value(
                "ca",
                PATH,
                Default::Absent,
                "Certificates (PEM) that `rediss` believes instead of the system's; `mysql` then speaks TLS or not at all.",
            ),
            value(
                "owner",
                STRING,
                Default::Absent,
                "Of `php-files`: whom PHP runs as, by name or number; a file of anybody else but root is no session. \
             Required where everybody may write into the folder, as in Debian's `/var/lib/php/sessions`.",
            ),
            value(
                "token",
                "place or list of places",
                Default::List(&["header:authorization", "header:x-token", "cookie:PHPSESSID"]),
                "Where the session's id is, the first that has one: `header:NAME` (`Bearer ` is stripped) or `cookie:NAME`.",
            ),
            value(
                "prefix",
                STRING,
                Default::Derived("`\"strangler:session:\"`; of `php-files` `\"sess_\"`; of a preset its framework's"),
                "What comes before the id in the store; phpredis has `PHPREDIS_SESSION:`, Laravel in Redis the prefix of its \
             connection and that of its cache.",
            ),
            value(
                "format",
                "`\"php\"`, `\"php_serialize\"`, `\"php_binary\"`, `\"igbinary\"` or `\"json\"`",
                Default::Value("\"php\""),
                "How a session is written down: PHP's `session.serialize_handler`.",
            ),
            value(
                "user",
                "path",
                Default::Value("\"user_id\""),
                "The field that says who it is: `auth.id` is `$_SESSION['auth']['id']`.",
            ),
            Key {
                name: "fields",
                kind: Kind::Names("path"),
                default: Default::Absent,
                meaning: "Further fields that both sides are told, and what they are called: `role` becomes `X-Strangler-Role`.",
            },
            value(
                "cache",
                DURATION,
                Default::Value("\"1s\""),
                "How long a session that was read is remembered, also that there is none; \"0s\" turns it off.",
            ),
            value(
                "on_store_down",
                "`\"legacy\"`, `\"deny\"` or `\"anonymous\"`",
                Default::Value("\"legacy\""),
                "While the store cannot be asked, the legacy side decides (a route without one refuses), or all are refused, or all pass \
             without an identity.",
            ),
            value(
                "required",
                BOOL,
                Default::Value("true"),
                "false: a request without a session passes, without an identity.",
            ),
            value(
                "parity",
                "share, `\"1%\"`",
                Default::Value("\"0%\""),
                "Of the requests that the legacy side serves, so many pass whatever the check says, and both verdicts are counted.",
            ),
            value(
                "login",
                PATH,
                Default::Absent,
                "The path of the login page: to be sent there counts as refused, as 401 and 403 do.",
            ),
            value(
                "preset",
                "`\"laravel\"`, `\"symfony\"` or `\"wordpress\"`",
                Default::Absent,
                "Reads the sessions of a framework ([guide](../guide/sessions.md)), which says itself who the user is; the keys that \
             follow belong to it.",
            ),
        ],
        LARAVEL,
        SYMFONY,
        WORDPRESS,
    ],
};

/// Of a session check with `preset = "laravel"`.
pub(super) static LARAVEL: &[Key] = &[
    value(
        "app_key",
        "`{ env = \"NAME\" }` or `{ file = \"path\" }`",
        Default::Absent,
        "`laravel` needs it: the application's `APP_KEY`, `base64:…`.",
    ),
    value(
        "previous_keys",
        "list of `{ env = \"NAME\" }` or `{ file = \"path\" }`",
        Default::Value("[]"),
        "`laravel`: one for each key of `APP_PREVIOUS_KEYS`.",
    ),
    value(
        "cipher",
        "`\"aes-256-cbc\"`, `\"aes-128-cbc\"`, `\"aes-256-gcm\"` or `\"aes-128-gcm\"`",
        Default::Value("\"aes-256-cbc\""),
        "`laravel`: its `app.cipher`.",
    ),
    value("guard", STRING, Default::Value("\"web\""), "`laravel`: the guard that users log in by."),
    value("encrypted", BOOL, Default::Value("false"), "`laravel`: its `session.encrypt`."),
    value(
        "serialization",
        "`\"php\"` or `\"json\"`",
        Default::Value("\"php\""),
        "`laravel`: its `session.serialization`.",
    ),
    value(
        "lifetime",
        DURATION,
        Default::Value("\"2h\""),
        "`laravel`: its `session.lifetime`, which ends sessions in `php-files`; in Redis they end by themselves.",
    ),
];

/// Of a session check with `preset = "symfony"`.
pub(super) static SYMFONY: &[Key] = &[
    value("firewall", STRING, Default::Value("\"main\""), "`symfony`: the firewall that users log in by."),
    value(
        "user_property",
        "name",
        Default::Absent,
        "`symfony` needs it: the property of the user's class that says who it is, like `email`.",
    ),
];

/// Of a session check with `preset = "wordpress"`.
pub(super) static WORDPRESS: &[Key] = &[
    value(
        "logged_in_key",
        "`{ env = \"NAME\" }` or `{ file = \"path\" }`",
        Default::Absent,
        "`wordpress` needs it: the site's `LOGGED_IN_KEY`.",
    ),
    value(
        "logged_in_salt",
        "`{ env = \"NAME\" }` or `{ file = \"path\" }`",
        Default::Absent,
        "`wordpress` needs it: the site's `LOGGED_IN_SALT`.",
    ),
    value(
        "siteurl",
        STRING,
        Default::Absent,
        "`wordpress`: its option `siteurl`, letter by letter, after which the cookie of a login is named. A site that names \
         it otherwise has `token = \"cookie:NAME\"` instead.",
    ),
    value("table_prefix", STRING, Default::Value("\"wp_\""), "`wordpress`: its `$table_prefix`."),
];

pub(super) static JWT: Section = Section {
    title: "[check.NAME] with `kind = \"jwt\"`",
    meaning: "Only bearers of a signed token pass, and only until it ends. `alg` decides nothing but which of `algorithms` is \
              tried; `crit` and `b64` are refused.",
    keys: &[&[
        KIND,
        value(
            "token",
            "place or list of places",
            Default::List(&["header:authorization"]),
            "Where the token is, the first that has one: `header:NAME` (`Bearer ` is stripped) or `cookie:NAME`.",
        ),
        value(
            "algorithms",
            "list of words",
            Default::Required,
            "How tokens may be signed: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`; or \
             `HS256`, `HS384`, `HS512`, never beside the others.",
        ),
        Key {
            name: "keys",
            kind: Kind::Names("`{ env = \"NAME\" }` or `{ file = \"path\" }`"),
            default: Default::Absent,
            meaning: "Keys by `kid`: public ones in PEM form, or the secrets of `HS…`.",
        },
        value(
            "jwks",
            "URL",
            Default::Absent,
            "Where the authority publishes its public keys, `https://`. A token with an unknown key has them fetched anew, \
             once a minute at most.",
        ),
        value("jwks_refresh", DURATION, Default::Value("\"10m\""), "Age at which published keys are fetched anew."),
        value(
            "jwks_keep",
            DURATION,
            Default::Value("\"1d\""),
            "Age up to which published keys are used when they cannot be fetched anew; then 503.",
        ),
        value("jwks_timeout", DURATION, Default::Value("\"5s\""), "How long fetching the keys may take."),
        value("issuer", "name or list of names", Default::Derived("any"), "Who may have made the token: its `iss`."),
        value(
            "audience",
            "name or list of names",
            Default::Derived("any"),
            "For whom the token may have been made: one of its `aud`.",
        ),
        value(
            "leeway",
            DURATION,
            Default::Value("\"30s\""),
            "How far the issuer's clock may be from this one, for `exp`, `nbf` and `iat`.",
        ),
        value(
            "user",
            STRING,
            Default::Value("\"sub\""),
            "The claim that is the user's id; a token without it is refused.",
        ),
        Key {
            name: "fields",
            kind: Kind::Names("claim, or dotted path of one"),
            default: Default::Absent,
            meaning: "Further claims that the sides are told, each as `X-Strangler-NAME`.",
        },
        value("max_bytes", SIZE, Default::Value("\"8KiB\""), "Bytes of a token; a longer one is refused unread."),
    ]],
};

pub(super) static FORWARD: Section = Section {
    title: "[check.NAME] with `kind = \"forward\"`",
    meaning: "An upstream decides: it is asked with a GET that has the request's fields and no body, and what the client \
              wants in `X-Forwarded-Method`, `-Uri` and `-Host`. 2xx passes; a redirect, 401 and 403 refuse; anything else \
              is no verdict.",
    keys: &[&[
        KIND,
        value("upstream", "name", Default::Required, "Who is asked: an upstream of this file."),
        value("path", PATH, Default::Required, "What it is asked for, like `\"/auth\"`."),
        value("timeout", DURATION, Default::Value("\"2s\""), "How long its verdict may take."),
        value(
            "answer",
            "`\"authority\"` or `\"gateway\"`",
            Default::Value("\"authority\""),
            "Whose answer a refused client gets: the authority's own page or redirect (up to 64 KiB), or the gateway's.",
        ),
        value(
            "on_down",
            "`\"deny\"` or `\"legacy\"`",
            Default::Value("\"deny\""),
            "Without a verdict: 503, or the legacy side decides for itself.",
        ),
        value(
            "copy",
            "list of header names",
            Default::Value("[]"),
            "Fields of its answer that both sides are told; what a client sends under these names is removed, on every route.",
        ),
        value("user", STRING, Default::Absent, "The field of its answer that is the user's id, `header:NAME`."),
        value(
            "cache",
            DURATION,
            Default::Value("\"0s\""),
            "How long a verdict (2xx, 401, 403) is remembered; 0: not at all.",
        ),
        value(
            "cache_by",
            "list of places",
            Default::Value("[]"),
            "What a verdict is remembered by: all that it depends on. `header:NAME` and `cookie:NAME` name the caller, and a \
             request with none of them is always asked about; `method`, `host` and `uri` where it depends on these too.",
        ),
    ]],
};

pub(super) static SIGNATURE: Section = Section {
    title: "[check.NAME] with `kind = \"signature\"`",
    meaning: "Only requests pass that somebody with a key signed, just now, and that were not accepted before. All parameters \
              but the signature are signed, sorted by the bytes of their names (PHP: `ksort($p, SORT_STRING)`) and joined \
              `k=v&k=v`. Names are signed as the client wrote them (`a.b`, not PHP's `a_b`); two names that are one to PHP, \
              like a name that is there twice, are refused, since PHP would take the last and the order is not signed. App, \
              timestamp and nonce may come as headers and are signed all the same, as the parameters `app`, `timestamp`, \
              `nonce`. A body that is no urlencoded form is covered by its SHA-256 in hex, `body_sha256`. By default method \
              and path are not signed: a `string` with `{method}` and `{path}` is stronger. Both sides are told the app in \
              `X-Strangler-App`.",
    keys: &[&[
        KIND,
        Key {
            name: "keys",
            kind: Kind::Names(
                "`{ env = \"NAME\" }` or `{ file = \"path\" }`, with `not_after = \"2027-01-31T00:00:00Z\"` if it has an end, or a list of two",
            ),
            default: Default::Required,
            meaning: "The secret of each app, or its public key in PEM for `rfc9421`. The second of two has the id `app#2` in \
                      `strangler_check_key_used_total`: a key whose count stands still is no longer in use.",
        },
        value(
            "scheme",
            "`\"string\"` or `\"rfc9421\"`",
            Default::Value("\"string\""),
            "A mac over a string, or HTTP Message Signatures with `Content-Digest` for bodies.",
        ),
        value(
            "string",
            STRING,
            Default::Value("\"{params}\""),
            "What is signed: text and `{params}`, `{method}`, `{path}` and `{query}` (as sent), `{host}`, `{body_sha256}`, \
             `{app}`, `{timestamp}`, `{nonce}`, `{header:x-name}`. Fields named here are not among the parameters as well \
             when they come as headers.",
        ),
        value(
            "canonical",
            "`\"decoded\"` or `\"percent\"`",
            Default::Value("\"decoded\""),
            "Whether parameters are signed decoded, or encoded by RFC 3986. Decoded ones that hold `&`, `=` in a name, or the \
             text beside `{params}`, are refused as ambiguous.",
        ),
        value(
            "algorithm",
            "`\"hmac-sha256\"`, `\"hmac-sha1\"`, `\"hmac-sha512\"` or `\"md5-suffix\"`",
            Default::Value("\"hmac-sha256\""),
            "`md5-suffix` is `md5(string + key)`, only to match what there is.",
        ),
        value(
            "encoding",
            "`\"hex\"` or `\"base64\"`",
            Default::Value("\"hex\""),
            "How the signature is written; hex in lower case, for `md5-suffix` in upper case as well.",
        ),
        value(
            "app",
            "place",
            Default::Derived("`\"app\"`, or `X-App`"),
            "Where the app's id is: `\"name\"` of a parameter, or `\"header:x-name\"`.",
        ),
        value(
            "timestamp",
            "place",
            Default::Derived("`\"timestamp\"`, or `X-Timestamp`"),
            "Where the time is, in seconds since 1970.",
        ),
        value("nonce", "place", Default::Derived("`\"nonce\"`, or `X-Nonce`"), "Where the nonce is."),
        value("signature", "place", Default::Derived("`\"signature\"`, or `X-Signature`"), "Where the signature is."),
        value(
            "body_sha256",
            "place",
            Default::Derived("`\"body_sha256\"`, or `X-Body-Sha256`"),
            "Where the digest of a body is.",
        ),
        value(
            "components",
            "list of components",
            Default::Derived("method, authority, path and query"),
            "`rfc9421`: what a signature must cover; `content-digest` always, when there is a body.",
        ),
        value(
            "tag",
            STRING,
            Default::Absent,
            "`rfc9421`: the tag of the signature to look at; without it there must be one only.",
        ),
        value(
            "window",
            DURATION,
            Default::Value("\"5m\""),
            "How far a timestamp may be from the clock, either way. A Redis keeps nonces for twice as long: raise it in steps, each no more than twice the one before.",
        ),
        value(
            "nonces",
            "`\"memory\"`, `\"off\"`, or address or secret",
            Default::Value("\"memory\""),
            "Where spent nonces are remembered: in this gateway alone, or in a Redis for all gateways that name it, written as the \
             `store` of a session check. `off` asks for none: within the window a request can be sent again. Unless its method is \
             safe, a request may be ahead of the clock by 5 seconds only, and is refused if it was signed before, or up to 5 seconds \
             after, the gateway (`memory`) or Redis started, or another Redis took its place: it may have been accepted before. \
             That a server of a cluster was replaced is not noticed. Redis must not evict (`maxmemory-policy noeviction`), and its \
             user must be allowed `SET` and `INFO`.",
        ),
        value(
            "on_store_down",
            "`\"deny\"` or `\"memory\"`",
            Default::Value("\"deny\""),
            "While the Redis of `nonces` cannot be asked or is full: all are refused; or what this gateway remembers decides, as with \
             `nonces = \"memory\"`, and each gateway may accept a request once.",
        ),
        value(
            "ca",
            PATH,
            Default::Absent,
            "Certificates (PEM) that `rediss` believes instead of the system's; `mysql` then speaks TLS or not at all.",
        ),
        value(
            "capacity",
            NUMBER,
            Default::Value("1000000"),
            "Nonces that this gateway remembers at once, those in a Redis too. When there is no room, signed requests are refused.",
        ),
        section("spool", &[&SIGNED_SPOOL], "Room for bodies until they are known to be those that were signed."),
    ]],
};

pub(super) static SIGNED_SPOOL: Section = Section {
    title: "[check.NAME.spool]",
    meaning: "Bodies of signed requests are kept here until they are complete, and then handed to the side from here.",
    keys: &[&[
        value(
            "memory",
            SIZE,
            Default::Value("\"128KiB\""),
            "Up to this a body stays in memory; a urlencoded form must.",
        ),
        value("disk", SIZE, Default::Value("\"1GiB\""), "Room on disk for all larger ones together."),
    ]],
};

/// What routes inherit from their group, and both from `[defaults]`.
const INHERITED: &[Key] = &[
    value("legacy", "name", Default::Absent, "The upstream that is the legacy side."),
    value("new", "name", Default::Absent, "The upstream, or the handler compiled in, that is the new side."),
    value("serve", "`\"legacy\"` or `\"new\"`", Default::Value("\"legacy\""), "Which side answers."),
    value(
        "timeout",
        DURATION,
        Default::Value("\"60s\""),
        "When the head of the answer must be there, queueing included; later is 504.",
    ),
    value(
        "body_bytes",
        SIZE,
        Default::Derived("`body_bytes` of `[server.limits]`"),
        "Bytes of a request's body; more is 413.",
    ),
    value("methods", "list of methods", Default::Derived("all"), "Methods that match."),
    value("host", STRING, Default::Derived("any"), "Host that matches."),
    value(
        "check",
        "name or list of names",
        Default::Value("[]"),
        "The checks that a request must pass, in this order; a list replaces what is inherited.",
    ),
];

static CONDITIONS: [Key; 1] = [section("when", &[&WHEN], "Further conditions, all of which must hold.")];

pub(super) static DEFAULTS: Section =
    Section { title: "[defaults]", meaning: "Every group and route inherits these.", keys: &[INHERITED] };

pub(super) static ROUTE: Section = Section {
    title: "[[route]]",
    meaning: "One rule. Which route wins never depends on the order in the file: a host named before any host, then the \
              more specific path, then a method listed before any, then more conditions before fewer.",
    keys: &[
        &[
            value("name", STRING, Default::Derived("the path"), "Labels metrics, is named in commands."),
            value(
                "path",
                STRING,
                Default::Required,
                "`{id}` stands for one segment, `{*rest}` for the rest, also when that is empty.",
            ),
            value(
                "ends_session",
                BOOL,
                Default::Value("false"),
                "The answer ends the session that the request came with: a logout that does not touch the cookie.",
            ),
        ],
        INHERITED,
        &CONDITIONS,
    ],
};

pub(super) static WHEN: Section = Section {
    title: "[route.when]",
    meaning: "Further conditions of a route: each name must be there with exactly this value.",
    keys: &[&[
        Key { name: "header", kind: Kind::Names("string"), default: Default::Absent, meaning: "Header fields." },
        Key {
            name: "query",
            kind: Kind::Names("string"),
            default: Default::Absent,
            meaning: "Parameters of the query.",
        },
        Key { name: "cookie", kind: Kind::Names("string"), default: Default::Absent, meaning: "Cookies." },
    ]],
};

pub(super) static GROUP: Section = Section {
    title: "[[group]]",
    meaning: "Routes under one prefix. A route's own key replaces the group's.",
    keys: &[
        &[
            value("prefix", STRING, Default::Required, "What the path of each of its routes begins with."),
            section("route", &[&ROUTE], "The routes, `[[group.route]]`; `path` may be empty for the prefix itself."),
        ],
        INHERITED,
        &CONDITIONS,
    ],
};

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const HEAD: &str = "# routes.toml: every key\n\n\
        <!-- Written from src/config/spec.rs by a test; change it there. -->\n\n\
        Durations are a number and a unit: `\"250ms\"`, `\"5s\"`, `\"10m\"`, `\"1h\"`, `\"1d\"`; sizes too: `\"64KiB\"`, `\"8MiB\"`,\n\
        `\"1MB\"`. Relative paths start at the folder of the file. An unknown key is a fault, and so is everything else that\n\
        cannot be right; `strangler check` lists all of them at once.\n";

    fn default_of(key: &Key) -> String {
        match key.default {
            Default::Required => "required".to_owned(),
            Default::Absent => "none".to_owned(),
            Default::Value(text) => format!("`{text}`"),
            Default::List(list) => list.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(" "),
            Default::Derived(words) => words.to_owned(),
        }
    }

    fn reference() -> String {
        let mut page = HEAD.to_owned();
        let mut postponed = Vec::new();
        for section in sections().into_iter().skip(1) {
            let _ = write!(page, "\n## {}\n\n{}\n\n", section.title, section.meaning);
            page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
            for key in section.keys() {
                let kind = match key.kind {
                    Kind::Value(kind) => kind.to_owned(),
                    Kind::Section(_) => "table".to_owned(),
                    Kind::Names(of) => format!("table: name = {of}"),
                    Kind::Later(..) => {
                        postponed.push(format!("`{}` in `{}`", key.name, section.title.replace('`', "")));
                        continue;
                    }
                };
                let _ = writeln!(page, "| `{}` | {kind} | {} | {} |", key.name, default_of(key), key.meaning);
            }
        }
        let _ = write!(
            page,
            "\n## Not in this version\n\nThe names of these are taken; using one is a fault that says so: `[[tls]]`, \
             {}, and the values `serve = \"shadow\"` and `serve = \"10%\"`.\n",
            postponed.join(", ")
        );
        page
    }

    #[test]
    fn the_reference_page_is_fresh() {
        let page = reference();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/routes.md");
        if std::fs::read_to_string(path).is_ok_and(|there| there == page) {
            return;
        }
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference")).unwrap();
        std::fs::write(path, page).unwrap();
        panic!("docs/reference/routes.md was stale and has been rewritten from src/config/spec.rs; commit it");
    }

    #[test]
    fn no_section_has_two_keys_of_one_name_and_all_say_what_they_mean() {
        for section in sections() {
            let mut names: Vec<_> = section.keys().map(|key| key.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", section.title);
            assert!(section.keys().all(|key| !key.meaning.is_empty()), "{}", section.title);
        }
    }
}
