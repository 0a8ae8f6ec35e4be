"""Delivers 50 lines with python-logging-loki."""

import logging
import sys

import logging_loki

handler = logging_loki.LokiHandler(url=f"{sys.argv[1]}/loki/api/v1/push", tags={"app": "py"}, version="1")
logger = logging.getLogger("test")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
logging.raiseExceptions = True
for i in range(50):
    logger.info("loki line %d", i)
