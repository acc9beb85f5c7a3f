"""As much of a browser as reading the API takes: a log-in by the authorization code flow with PKCE, as the page does it."""

import base64
import hashlib
import http.cookiejar
import json
import secrets
import urllib.parse
import urllib.request


class Browser:
    """Follows redirects and keeps cookies, for the page of one origin."""

    def __init__(self, origin):
        self.origin = origin
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def ask(self, url, fields=None, token=None):
        data = urllib.parse.urlencode(fields).encode() if fields else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with self.opener.open(urllib.request.Request(url, data, headers), timeout=10) as answer:
            return answer.url, answer.read().decode()

    def log_in(self, name, password):
        """An access token."""
        config = json.loads(self.ask(f"{self.origin}/config.json")[1])
        discovered = json.loads(self.ask(f"{config['issuer']}/.well-known/openid-configuration")[1])
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        back = {"client_id": config["client_id"], "redirect_uri": f"{self.origin}/callback"}
        ask = {**back, "response_type": "code", "scope": config["scope"], "state": secrets.token_urlsafe(8),
               "code_challenge": challenge, "code_challenge_method": "S256"}  # fmt: skip
        form, _ = self.ask(f"{discovered['authorization_endpoint']}?{urllib.parse.urlencode(ask)}")
        page, _ = self.ask(form, {"username": name, "password": password})
        (code,) = urllib.parse.parse_qs(urllib.parse.urlsplit(page).query)["code"]
        grant = {**back, "grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        return json.loads(self.ask(discovered["token_endpoint"], grant)[1])["access_token"]
