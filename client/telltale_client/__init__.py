"""What a serving pod ships to Telltale: predictions, and the labels that become known of them.

Nothing here raises into the pod or waits for a network, a disk or a lock that is held for long.

>>> logger = Logger("loans", "2", server="pod-4")  # TELLTALE_URL is not set here, so what is logged goes nowhere
>>> logger.predict({"income": 41.5}, {"score": 0.83, "label": "yes"}, latency_ms=7.4, prediction_id="a1")
'a1'
"""

from telltale_client.logger import Call, Logger
from telltale_client.sampling import kept
from telltale_client.shipping import Stats

__all__ = ["Call", "Logger", "Stats", "kept"]
