"""Django's settings for the tenants."""

import os

import target

INSTALLED_APPS = ["django.contrib.postgres", "django.contrib.contenttypes", "django.contrib.auth", "django_multitenant", "tenants"]
DATABASES = {
    "default": {
        "ENGINE": "django_multitenant.backends.postgresql",
        "HOST": target.HOST,
        "PORT": target.PORT,
        "USER": target.USER,
        "NAME": target.DATABASE,
        "OPTIONS": {"server_side_binding": os.environ.get("SERVER_SIDE_BINDING") == "1"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
