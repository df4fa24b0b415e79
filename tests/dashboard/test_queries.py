"""What pages show equals what the analysts' functions and plain NumPy say, asked as the reader role."""

from __future__ import annotations

import numpy as np
import pytest

from conftest_world import COUNTRIES, OUTSIDE
from geofix.database.engine import connect
from geofix.database.queries import dashboard, dashboard_accuracy
from geofix.database.queries.dashboard_accuracy import Focus
from geofix.database.queries.dashboard_examples import EXAMPLES
from geofix.database.sandbox import ask
from geofix.evaluation.metrics import wilson
from geofix.settings import get_settings

EVERYWHERE = Focus()
T = 200.0
