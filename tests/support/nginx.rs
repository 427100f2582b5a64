//! nginx in front of the same PHP-FPM pool: what the gateway's answers are compared with.

use std::net::SocketAddr;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::php::Php;
use super::process::Process;
use super::{eventually, free_port, temp_dir};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    _process: Process,
    _dir: TempDir,
    address: SocketAddr,
}

/// nginx as the manuals set it up: files first, any existing script, then the front controller.
pub async fn nginx(php: &Php) -> Nginx {
    nginx_named("localhost", php).await
}

/// The same under a name of its own.
pub async fn nginx_named(name: &str, php: &Php) -> Nginx {
    let dir = temp_dir("nginx");
    let here = dir.path().display();
    let (port, root, socket) = (free_port(), php.root().display(), php.socket().display());
    let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
    let conf = format!(
        "{user}daemon off;\nworker_processes 1;\npid {here}/nginx.pid;\nerror_log {here}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n include /etc/nginx/mime.types;\n default_type application/octet-stream;\n access_log off;\n\
         client_body_temp_path {here}/body;\n fastcgi_temp_path {here}/fastcgi;\n proxy_temp_path {here}/proxy;\n\
         uwsgi_temp_path {here}/uwsgi;\n scgi_temp_path {here}/scgi;\n client_max_body_size 64m;\n\
         server {{\n  listen 127.0.0.1:{port};\n  server_name {name};\n  root {root};\n  index index.php;\n\
         absolute_redirect off;\n\
         location / {{ try_files $uri $uri/ /index.php?$args; }}\n\
         location /protected/ {{ internal; alias {root}/../protected/; }}\n\
         location ~ [^/]\\.php(/|$) {{\n   fastcgi_split_path_info ^(.+?\\.php)(/.*)$;\n   set $path_info $fastcgi_path_info;\n\
         try_files $fastcgi_script_name /index.php?$args;\n   include /etc/nginx/fastcgi.conf;\n\
         fastcgi_param PATH_INFO $path_info;\n   fastcgi_pass unix:{socket};\n\
         fastcgi_buffer_size 64k;\n   fastcgi_buffers 16 64k;\n  }}\n }}\n}}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, conf).expect("nginx.conf");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir.path()).arg("-c").arg(&file).arg("-e").arg(dir.path().join("error.log"));
    let process = Process::start("nginx", &command, &dir.path().join("nginx.out"), None, Signal::TERM);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("nginx listens", || async { std::net::TcpStream::connect(address).ok() }).await;
    Nginx { _process: process, _dir: dir, address }
}

impl Nginx {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
