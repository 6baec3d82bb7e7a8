"""Where things lie: URIs, object-store options that never print a secret, plain files beside the tables."""

from lake.storage.files import Files
from lake.storage.filesystem import filesystem
from lake.storage.location import Location, StorageOptions, table_name
from lake.storage.probe import require_put_if_absent

__all__ = ["Files", "Location", "StorageOptions", "filesystem", "require_put_if_absent", "table_name"]
