"""Make the sample that ships in `lake/sample`: 8,000 Debian packages and a dozen queries, with vectors.

    python tests/data/make_sample.py debian_packages.parquet debian_packages_minilm.f16.npy \\
        query_vectors.npz lake/sample

The first two files hold the package index of Debian 12 and, row for row, the embeddings of its short
descriptions. The third holds the queries: ``text`` (n,) strings and ``embedding`` (n, 384) float32, by the
same model; `lake/sample/LICENSE.md` shows the program that made it. The same input gives the same tables,
and with the same pyarrow the same bytes.

What makes a good sample: packages that people know, many kinds of them, few variants of one thing. So a
package is scored by signs that it is a program that people use; names that everybody knows come first; then
the best are taken, while no section, source package, family of names or summary may take too much.
"""

import argparse
import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROWS = 8_000
DIMENSIONS = 384
DESCRIPTION_CHARACTERS = 1_000
ROWS_PER_SOURCE = 2  # vim and vim-gtk3, but not eleven of them
ROWS_PER_FAMILY = 30  # of names that begin with the same word, as tryton-modules-* and kodi-* do

# At most so many rows of a section; the others may take SECTION_ROWS.
SECTION_ROWS = 560
SECTION_LIMITS = {
    "debug": 3, "doc": 80, "fonts": 120, "gnu-r": 130, "golang": 60, "haskell": 60, "introspection": 10,
    "java": 160, "javascript": 160, "kernel": 40, "libdevel": 70, "libs": 120, "lisp": 80, "localization": 15,
    "metapackages": 90, "ocaml": 60, "oldlibs": 0, "perl": 170, "php": 20, "python": 600, "ruby": 120,
    "rust": 60, "tasks": 12, "zope": 5,
}  # fmt: skip

# What people look for most, so a little ahead of the rest.
FAVOURED = {"database", "education", "graphics", "httpd", "python", "shells", "vcs", "video"}

# Taken whatever their score: what a visitor will look for first.
WELL_KNOWN = """
abiword ace-of-penguins adduser aegisub aircrack-ng aisleriot alpine alsa-utils ansible apache2 apt ardour
aria2 ark asciidoctor asymptote atop audacity autoconf automake avahi-daemon awesome bacula bash bat bc bind9
bison bleachbit blender bluefish bluez borgbackup brasero brotli bspwm btop build-essential busybox bzip2
cadabra2 calcurse calibre cargo certbot chromium clamav clang clickhouse-server cmake cmatrix cmus coreutils
coturn cowsay cron crystal cups curl cvs darktable dash dbus debootstrap default-jdk default-mysql-server
deluge dia diffutils digikam dillo dnsmasq docker.io dolphin dosbox dovecot-core doxygen dpkg duf dunst
easytag ed elinks emacs enscript eog epiphany-browser erlang ettercap-graphical evince evolution exa exim4 f3d
fail2ban falkon fd-find fdupes feh ffmpeg fig2dev file filezilla findutils fio firefox-esr firewalld fish flac
flameshot flex fluxbox focuswriter foliate fontforge fortune-mod fossil fotoxx freecad freeciv freedoom
freeradius frescobaldi fzf g++ galculator gawk gcc gcompris-qt gdb geany gedit geeqie gfortran gh ghc gimp git
git-lfs gitk gnome-chess gnome-shell gnome-terminal gnome-text-editor gnubg gnucash gnuchess gnumeric gnupg
gnuplot gnuradio gobby golang golang-go gparted gpg gqrx-sdr graphviz grass grep groonga grub2 gthumb guvcview
gzip handbrake haproxy hardinfo hexchat hexedit hollywood hplip htop httpie hugin hugo hydra hydrogen
hyperfine i3 icecast2 icewm iftop imagemagick influxdb inkscape iotop iperf3 iptables ipython3 irssi jackd2
joe jq jupyter-notebook k3b kate kdeconnect kdenlive keepassxc kicad kid3 kile kodi kompare konsole krita
kstars kubernetes-client kwrite lame latexmk ldap-utils ledger less libimage-exiftool-perl libreoffice
libreoffice-base libreoffice-calc libreoffice-draw libreoffice-impress libreoffice-math libreoffice-writer
libsdl2-2.0-0 lighttpd lilypond links lm-sensors lmms logrotate lsof lua5.4 lynx lyx lz4 lzip make manuskript
marble mariadb-client mariadb-server mate-terminal maxima mc mcomix mednafen meld memcached mercurial meshlab
meson milkytracker minetest minicom mixxx moc mosh mousepad mpd mpg123 mplayer mpv mtr mumble munin mupdf
musescore3 mutt mycli mypaint nano nasm nautilus ncdu neofetch neomutt neovim netcat-openbsd netdata
nethack-console nethogs newsboat nftables nginx ninja-build nmap node-express notepadqq npm nsd ntp obs-studio
ocaml octave okteta okular opam openbox openjdk-17-jdk openscad openssh-client openssh-server openssl openttd
openvpn p7zip-full pandoc parallel parted patch patroni pavucontrol perl pgbouncer pgcli pgmodeler php pidgin
pigz pinentry-gtk2 pipewire planner plantuml plume-creator podman poppler-utils postfix postgis postgresql
postgresql-15 povray privoxy proftpd-core prometheus psensor pulseaudio puppet-agent puredata pypy3 python3
python3-astropy python3-bs4 python3-cryptography python3-dask python3-django python3-elasticsearch
python3-faiss python3-fastapi python3-flask python3-gensim python3-h5py python3-jinja2 python3-joblib
python3-lxml python3-matplotlib python3-networkx python3-nltk python3-notebook python3-numba python3-numpy
python3-onnx python3-opencv python3-pandas python3-pil python3-pip python3-psycopg2 python3-pytest
python3-requests python3-rich python3-scipy python3-skimage python3-sklearn python3-sqlalchemy
python3-statsmodels python3-sympy python3-torch python3-torchaudio python3-torchvision python3-venv
python3-xgboost python3-zarr qbittorrent qemu-system-x86 qgis qtcreator quassel quodlibet qutebrowser r-base
r-cran-ggplot2 rabbitmq-server rails ranger rawtherapee rclone recoll redis redis-server redshift remmina
restic rhythmbox ripgrep rkhunter rsnapshot rspamd rsync rsyslog rtorrent ruby rustc rxvt-unicode samba
sane-utils scala scite scratch screen scribus scummvm sed shotcut shotwell signing-party simplescreenrecorder
smartmontools snapd solaar sonic-pi sox spamassassin sphinxsearch spyder sqlite3 sqlitebrowser squid ssh
stellarium stockfish strace strongswan subversion sudo supercollider supertuxkart surfraw swig synaptic
syncthing sysbench sysstat systemd tar tarantool task-gnome-desktop task-kde-desktop tcpdump telegram-desktop
tesseract-ocr texlive texlive-latex-base texstudio texworks thunar thunderbird tig tigervnc-viewer
tightvncserver tilix timidity tint2 tmux tomcat10 tor transmission-gtk tree tshark tuxguitar tuxpaint
typespeed udev ufw umbrello unbound unison unixodbc unrar-free unzip uwsgi vagrant valgrind varnish vim
vim-gtk3 vinagre virt-manager virtualenv virtuoso-opensource vlc vlc-bin vorbis-tools vsftpd w3m weechat
wesnoth wget wine wireguard wireshark wordgrinder wordpress xboard xclip xfce4 xfig xorg xournal xournalpp
xpdf xterm xz-utils yad yakuake yt-dlp zathura zbar-tools zeal zenity zim zip zookeeper zsh zstd zutils
"""

PARTS = re.compile(
    r"-(dev|doc|docs|dbg|dbgsym|data|common|l10n|locales?|prof|examples?|tests?|headers|source|support)\b"
)
TRANSITIONAL = re.compile(r"transitional|dummy package|metapackage for|virtual package", re.IGNORECASE)
ADDRESS = re.compile(r"<?[\w.+-]+@[\w-]+(\.[\w-]+)+>?")

Row = dict[str, Any]


def score(row: Row, dependents: int) -> float:
    """Say how likely it is that people know a package and would search for it; larger is better."""
    name, tags = row["package"], row["tags"]
    points: float = 4.0 * ("role::program" in tags) + 2.0 * (not tags)  # nobody has tagged what is new
    points += math.log1p(len(tags)) + 0.5 * math.log1p(dependents)
    points += 1.5 * (name == row["source"]) + 1.0 * bool(row["homepage"])
    points += 1.0 * ("interface::graphical" in tags) + 1.0 * ("interface::commandline" in tags)
    points += 1.5 * (row["section"] in FAVOURED) + min(len(row["long_desc"]), 600) / 600
    points += 4.0 * (row["priority"] in {"required", "important", "standard"})
    points -= 6.0 * bool(PARTS.search(name)) + 0.5 * name.startswith("lib")
    points -= 9.0 * bool(TRANSITIONAL.search(row["short_desc"]))
    return points


def choose(rows: list[Row], dependents: Counter[str]) -> list[int]:
    """Choose `ROWS` rows, the well-known ones and then by score within the limits; sort them by name."""
    well_known = set(WELL_KNOWN.split())
    if unknown := well_known.difference(row["package"] for row in rows):
        raise SystemExit(f"well known, yet not in the index: {sorted(unknown)}")
    order = sorted(
        # Two summaries of many lines, nodejs's and osslsigncode's, are slips: their vectors embed only a part.
        (i for i, row in enumerate(rows) if "\n" not in row["short_desc"]),
        key=lambda i: (
            rows[i]["package"] not in well_known,
            -score(rows[i], dependents[rows[i]["package"]]),
            rows[i]["package"],
        ),
    )
    sections: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    families: Counter[str] = Counter()
    summaries: set[str] = set()
    chosen: list[int] = []
    for i in order:
        row = rows[i]
        section, source, summary = row["section"], row["source"], row["short_desc"].lower()
        family = row["package"].partition("-")[0]
        fits = (
            sections[section] < SECTION_LIMITS.get(section, SECTION_ROWS)
            and sources[source] < ROWS_PER_SOURCE
            and (families[family] < ROWS_PER_FAMILY or section in SECTION_LIMITS)
            and summary not in summaries
        )
        if fits or row["package"] in well_known:
            chosen.append(i)
            sections[section] += 1
            sources[source] += 1
            families[family] += 1
            summaries.add(summary)
        if len(chosen) == ROWS:
            return sorted(chosen, key=lambda i: rows[i]["package"])
    raise SystemExit(f"the limits leave {len(chosen)} rows, not {ROWS}")


def shorten(text: str) -> str:
    """Hide mail addresses, and cut a long description at the end of a word."""
    text = ADDRESS.sub("(address)", text)
    if len(text) <= DESCRIPTION_CHARACTERS:
        return text
    return text[:DESCRIPTION_CHARACTERS].rsplit(None, 1)[0] + " …"


def control(row: Row) -> str:
    """Put what has no column of its own into a JSON object; its keys are always the same four."""
    fields = {
        "source": row["source"],
        "architecture": row["architecture"],
        "priority": row["priority"],
        "depends": list(dict.fromkeys(row["depends"])),
    }
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def fixed_size_list(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """Make an Arrow column of a matrix's rows, of the matrix's own type; refuse rows not of unit length."""
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    if vectors.shape[1:] != (DIMENSIONS,) or not (abs(lengths - 1) < 1e-3).all():
        raise SystemExit("expected rows of 384 numbers and of unit length")
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSIONS)


def packages_table(rows: list[Row], vectors: NDArray[np.float16], dependents: Counter[str]) -> pa.Table:
    """Make the sample's columns; `vectors` is (rows, 384), kept to the bit."""
    columns = {
        "name": pa.array([row["package"] for row in rows], pa.string()),
        "version": pa.array([row["version"] for row in rows], pa.string()),
        "section": pa.array([row["section"] for row in rows], pa.string()),
        "tags": pa.array([row["tags"] for row in rows], pa.list_(pa.string())),
        "summary": pa.array([row["short_desc"] for row in rows], pa.string()),
        "description": pa.array([shorten(row["long_desc"]) for row in rows], pa.string()),
        "maintainer": pa.array([row["maintainer"] for row in rows], pa.string()),
        "homepage": pa.array([row["homepage"] for row in rows], pa.string()),
        "download_bytes": pa.array([row["size"] for row in rows], pa.int64()),
        "installed_bytes": pa.array([row["installed_kb"] * 1024 for row in rows], pa.int64()),
        "dependents": pa.array([dependents[row["package"]] for row in rows], pa.int32()),
        "control": pa.array([control(row) for row in rows], pa.string()),
        "embedding": fixed_size_list(vectors),
    }
    return pa.table(columns)


def write(table: pa.Table, path: Path) -> None:
    """Write one row group, small. The vectors stay plain: DuckDB reads no float16 split by bytes."""
    texts = [name for name in table.column_names if name != "embedding"]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=["tags.list.item" if name == "tags" else name for name in texts],
        use_compliant_nested_type=False,
        row_group_size=len(table),
        write_statistics=texts,
    )
    content = path.read_bytes()
    print(f"{hashlib.sha256(content).hexdigest()}  {path.name}  {len(table):,} rows  {len(content):,} bytes")


def main() -> None:
    """Read, choose, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("packages", "package_vectors", "query_vectors", "folder"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()

    rows: list[Row] = pq.read_table(arguments.packages).to_pylist()
    vectors = np.load(arguments.package_vectors, mmap_mode="r")
    if len(rows) != len(vectors):
        raise SystemExit(f"{len(rows)} packages, but {len(vectors)} vectors")
    dependents = Counter(needed for row in rows for needed in set(row["depends"]))

    chosen = choose(rows, dependents)
    table = packages_table([rows[i] for i in chosen], vectors[chosen], dependents)
    write(table, arguments.folder / "packages.parquet")

    queries = np.load(arguments.query_vectors)
    texts = pa.array(queries["text"].tolist(), pa.string())
    columns = {"text": texts, "embedding": fixed_size_list(queries["embedding"])}
    write(pa.table(columns), arguments.folder / "queries.parquet")


if __name__ == "__main__":
    main()
