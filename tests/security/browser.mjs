// A browser without a window: it follows redirects with cookies, as far as the client's own address.

/** Visits an address, and gives the redirect to `callback` to which it leads. */
export async function visit(address, callback) {
  const cookies = new Map();
  let at = new URL(address);
  for (let hops = 0; hops < 20; hops++) {
    if (`${at.origin}${at.pathname}` === String(callback)) return at;
    const Cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await fetch(at, { redirect: "manual", headers: { Cookie } });
    for (const cookie of response.headers.getSetCookie()) {
      const [name, value] = cookie.split(";")[0].split(/=(.*)/s);
      cookies.set(name, value);
    }
    const location = response.headers.get("Location");
    if (!location) throw new Error(`${at} answers ${response.status}: ${await response.text()}`);
    at = new URL(location, at);
  }
  throw new Error(`${address} redirects without end`);
}
