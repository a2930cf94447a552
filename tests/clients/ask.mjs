// Asks a range API for the count of one password, with a client from npm: `ask.mjs CLIENT BASE_URL PASSWORD`.
// Prints the count; 0 if the password is not there.

import { pwnedPassword } from "hibp";
import { matcherPwnedFactory } from "@zxcvbn-ts/matcher-pwned";

const clients = {
  hibp: (baseUrl, password) => pwnedPassword(password, { baseUrl }),
  "hibp-padded": (baseUrl, password) => pwnedPassword(password, { baseUrl, addPadding: true }),
  zxcvbn: async (baseUrl, password) => {
    const config = {
      url: `${baseUrl}/range/`,
      networkErrorHandler: (error) => {
        throw new Error(`the client reports an error: ${error.status ?? error}`);
      },
    };
    const translations = { warnings: {}, suggestions: {} };
    const { Matching } = matcherPwnedFactory(fetch, { translations }, config);
    const [match] = await new Matching().match({ password });
    return match?.pwnedAmount ?? 0;
  },
};

const [client, baseUrl, password] = process.argv.slice(2);
console.log(await clients[client](baseUrl, password));
