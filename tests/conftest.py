"""Settings of Hypothesis: that a machine is busy makes no test fail."""

from hypothesis import HealthCheck, settings

settings.register_profile("mdlc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mdlc")
