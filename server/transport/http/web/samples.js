// Images of MNIST's test set, byte for byte: Yann LeCun, Corinna Cortes, Christopher Burges; CC BY-SA 3.0.

import { inflate } from "./compression.js";
import { fromBase64 } from "./tensors.js";

/** Shape of a sample, [height, width]. */
export const SAMPLE_SHAPE = [28, 28];

/** Each sample's place in the test set and its label. The bundled model errs on the last two. */
const ORIGINS = [
  { index: 10, label: "0" },
  { index: 2, label: "1" },
  { index: 35, label: "2" },
  { index: 32, label: "3" },
  { index: 4, label: "4" },
  { index: 15, label: "5" },
  { index: 22, label: "6" },
  { index: 0, label: "7" },
  { index: 84, label: "8" },
  { index: 12, label: "9" },
  { index: 947, label: "8" },
  { index: 659, label: "2" },
];

const PIXELS =
  "7ZkNUFTXFYCfIkkQMIqAJhF/GvODP4lAHINRoSCaltqKbja2NppqQ4xMR10JCU1jtUTNpEIz01akVZOiRN3ADD9OqaZULQlJWbaI" +
  "AhYNURYk/InALP/3nNe7j2XZ9949zGSmnU7VM8O8u/fb8+4999y995yDJP3PZKnHnKQLSUlL9WRCQXdbF3LpbjVoWTrvrjqfn38a" +
  "sfMpNZrbirbIaT6SNHY3k3MmqdizCAnO5r4BjFWxCDzqatfiERX7O77qah/EKnf0rS9vL3Z9MKjZLvxYolj17SU0+1yimPc1mm1C" +
  "d5aJFRQLa1fZ7s7CsrB4nBuL6nQxjxNYv0i1LNVV/srzqUOliBFqN1Rj2WmHtCK2HB6vZnFWHBLW8qbO7Q9fUlDGFunulcfxZyR7" +
  "ka0h2f5OEs23HySZQes8Nym97k2hmfgvUm0jFpPsAK6iUPgt6wMU+4WcRb7yY4yj0NSmK6Tam/gBydIxjWQNGEWeZ4M0S0WrB4HG" +
  "X8FkSs2zJHf83ftbmP32uasyP+bD9KisH4ZkoFVD1nUOQl1aiI+Pz2sA29Q7sw5O7JigNCdehtfd0fp2ME9znfMqtmnw6gJPScy2" +
  "w/aRD15/6fJzY/7zR7SkaOigrHykpe81As07Au8QyLsILI8Q6DD0rCJR6XIS2Vbqu6fPmnXg2FmwPa4jPnF2pw/OrpgiSYGHR8Zc" +
  "Xaz097V81AfQcfA7729xufD+PgV1cZMTunij+0O3I2CAd/TuD3C0A14vLFzgPlzyW7n7J0r3RCCbHbdmTVKwAOX3DrnogB5F2uFi" +
  "Xt6izdD/Yx2bnFXwEH/EAJC3UQz0bySQbwb8hjrlOwB+KCT3beNTrRfZIM1oUGyoXSdgjzr3IPvnAh2bZrVa1yxf/lcAWxgxn8Un" +
  "AG7MJqBHLsBictVzoPYxim0BiCVQcD3BfCIO2ADaw/UaczIuOEysMWrnF3R0UDG+Kd5XqzQx8SwH9Yk77spfROgNZ2NFkI4lf+1s" +
  "/O6kFo0rHmYvX9LGPjFsn7NlYgGaAKutxsfZPK9lJ3sXOlt+MqiZoeuyKzyAIk8VO8W2DodaTQPqqOLBOjbc3Mcuq0cLZMdH3nBC" +
  "zbzKKpzXUyC4cqGRb3/+Apc9x4uZa2TX/jN3My5NXw8y5qVbzhADF0n6E2OkN37J2HyK7QYYTY+Od5mdZE1t20hWEHXn7vqwd6oB" +
  "wZKpPUTj0ywWYMDSV+h1EOyWtHhxXpHNLORYAddbppPw5xBKsrdwfVhY2HjxOx2zhGzBbAKquV3x8ZbrCDrdpTCUa/tvPw+VweTA" +
  "8ZaWMBL6VzXRudUyS8v2UTTpTSpl0Js7uLnS/eMOt0t4Ro79STe0BtKdixAfX9hcqUp31sjQcijjQg73O1al+auHWJme3gSV59NT" +
  "QkPvzCzCJIeTzEazINk0yiuNJCuRg+hX2ki1VDnVGfwYjamaSZmdw4XbZC7hQmaWZVO4rUTEwmXH0yyL2NDDrLYnVTE9SC6R9CxI" +
  "lpVOZXFKbFrbTcMKRu3yGWXZzGfCF8dos2mXyKRYZjSaZYFDglJlRUqCCB/KqUZyVWWzmXJxqs1sCrqXGPxXxXDmg/QlROj8lSMj" +
  "6SxxivkZdxZtet50rB7r+DcGbiLqM5NJUROio6OfC2jDrdTYa6HCj0CBzfJaSm0Pts8j0HP9uIxS24ufeBLIy9pHZgi78M8Uih3s" +
  "oLbu5Fr8iMpHLHjtUbJuSJbWZtzAnWNI0/AZqpzVRbNkxGtPkqzc787Y4ffFSpvO5G+YrAMPbitu3yBd7EdM1AQDoQmf9RTy1Dmu" +
  "G/vXuxM/QyNiLT/MxrwNmL9Q64SapHE8zijFzhR1ETTBjlWO2HlZB36pOdDm9WBFiMO9nVirrQRtRHTU6yeV4NVpunrTNWx+/4k5" +
  "ZWgVBAU7+xDtzXh9qnCPGU52819t+U4vEZ3Qho3Hbtkvrx4jrFBslqTH6vBX+hrvSrzpyJ7GmlEfnr2MqOylOCzRsdVOloJv6Oum" +
  "1fh9/hhTaBeUtyOBmzd2F+aLrHix/as38rBGXFrz+8Onn77y0L2j/xtIyGmQ4dRs7+/p9ozn8gbGw332YRHoClCLGKv/QUzMT3/U" +
  "1hutQXOb2RlHdvGwhe3Xqp2EfKUks4Ixrd//CF1zlFHPwd+0auWsUUHvMhYpZjPf4xPSVR+zWH95eXmDwwb9xVAAjqQ59hR7VrAq" +
  "kYmJ35V+D1cCqGUDlkmhmdBBZldH4DiF5nbol3lYXgJmIANiVkE6t5wlkixrFPbSFxH/59vaNzn5XO/eySL0RKeyrbsSBLliEVMY" +
  "69adPYGfMCdjuqPuVd7Zt3PhuyL2Be+8xO8JglXO4qE7Z3kClitJq3o501ZEnm5k7LeStJujKu3tEcc7Mx/Y65jnGZ15/1CKkTL/" +
  "WyiJ5jlkn57FjcK8o7OzrypM/C/AYCaei3IjKaw1hGYs6psy3x4QrcuQRHBWse4uPemnl6L8ayFZfLoM4JbIDQEJHcqeeU/nglmm" +
  "i87KvpZ55SvdeWYBm6SgzyauFbJMgNwXpBwRq7swdaq3JPUI2P3hyqXwkwHRPJ1XGde7OU6I5mcPAjSI1aKgiGRL0l4BoPKfw3wq" +
  "3ybygGyAHF9+nszUs0auZk153phSt0gf9ygrd/vKnqO+gnkq/+Xbultw3j1dkDPFsS4bpohmc9zjkNDv/zn5Nw==";

/**
 * @returns {Promise<{index: number, label: string, pixels: Uint8Array}[]>} pixels 0..255 of SAMPLE_SHAPE
 */
export async function readSamples() {
  const size = SAMPLE_SHAPE[0] * SAMPLE_SHAPE[1];
  const bytes = await inflate(fromBase64(PIXELS), ORIGINS.length * size);
  return ORIGINS.map((origin, i) => ({ ...origin, pixels: bytes.slice(i * size, (i + 1) * size) }));
}
