"""Apache with one process for each connection."""

import gzip
import os

from common import get, run, wait_for_port, write

PORT = 8094

CONFIGURATION = f"""ServerRoot /etc/apache2
ServerName localhost
Listen 127.0.0.1:{PORT}
PidFile /tmp/apache.pid
ErrorLog /tmp/apache.log
DefaultRuntimeDir /tmp
Mutex file:/tmp default
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule filter_module /usr/lib/apache2/modules/mod_filter.so
LoadModule deflate_module /usr/lib/apache2/modules/mod_deflate.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
StartServers 4
DeflateCompressionLevel 9
TypesConfig /etc/mime.types
AddOutputFilterByType DEFLATE text/plain
DocumentRoot /tmp/site
<Directory /tmp/site>
Require all granted
</Directory>
"""


def start():
    os.makedirs("/tmp/site", exist_ok=True)
    write("/tmp/site/text.txt", " ".join(f"{number * 7919 % 1_000_003}" for number in range(250_000)))
    write("/tmp/apache.conf", CONFIGURATION)
    run("/usr/sbin/apache2", "-f", "/tmp/apache.conf", "-k", "start")
    wait_for_port(PORT)


def handle(event):
    return {"bytes": len(gzip.decompress(get(PORT, "/text.txt")))}
