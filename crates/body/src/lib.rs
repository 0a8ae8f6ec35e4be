//! Bodies of log records as templates and variables: mining, block codec, search, token blooms.
