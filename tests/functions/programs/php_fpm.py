"""php-fpm in the background behind nginx, as the Lambda Web Adapter is used with PHP."""

import glob

from common import get, run, wait_for_port, write

PORT = 8092

POOL = """[global]
error_log = /tmp/fpm.log
pid = /tmp/fpm.pid
daemonize = yes
[www]
listen = /tmp/fpm.sock
pm = static
pm.max_children = 2
"""

SITE = f"""pid /tmp/nginx.pid;
error_log /tmp/nginx.log;
events {{}}
http {{
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    access_log off;
    server {{
        listen 127.0.0.1:{PORT};
        location / {{
            fastcgi_pass unix:/tmp/fpm.sock;
            fastcgi_param SCRIPT_FILENAME /tmp/index.php;
            fastcgi_param REQUEST_METHOD $request_method;
        }}
    }}
}}
"""

SCRIPT = """<?php
$held = str_repeat("x", 20 << 20);
$hash = "";
for ($i = 0; $i < 200000; $i++) { $hash = md5($hash . $i); }
echo $hash;
"""


def start():
    write("/tmp/fpm.conf", POOL)
    write("/tmp/nginx.conf", SITE)
    write("/tmp/index.php", SCRIPT)
    run(sorted(glob.glob("/usr/sbin/php-fpm*"))[-1], "-y", "/tmp/fpm.conf")
    run("/usr/sbin/nginx", "-e", "/tmp/nginx.log", "-c", "/tmp/nginx.conf")
    wait_for_port(PORT)


def handle(event):
    return {"hash": get(PORT).decode()}
