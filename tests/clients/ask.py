"""Asks a range API for the count of one password, with a client from PyPI: `ask.py CLIENT BASE_URL PASSWORD`.

Prints the count; 0 if the password is not there.
"""

import os
import ssl
import sys

import httpx
from django.conf import settings

client, base_url, password = sys.argv[1:]
settings.configure(PWNED_PASSWORDS={"ADD_PADDING": client == "django-padded", "API_TIMEOUT": 20})

from pwned_passwords_django.api import PwnedPasswords  # noqa: E402  It reads the settings.

context = ssl.create_default_context(cafile=os.environ.get("NODE_EXTRA_CA_CERTS"))
passwords = PwnedPasswords(client=httpx.Client(verify=context))
passwords.api_endpoint = f"{base_url}/range/"
print(passwords.check_password(password))
