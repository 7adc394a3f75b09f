/** Asks for the token of a server that wants one. */

import { byId } from "./dom.js";
import { say } from "./strings.js";

/** @param {boolean} wrong whether another one was tried @returns {Promise<string>} empty where nobody knows it */
export function askToken(wrong) {
  const dialog = byId("token");
  const input = byId("token-text");
  dialog.returnValue = "";
  input.value = "";
  byId("token-wrong").textContent = wrong ? say("tokenWrong") : "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    input.form.onsubmit = (event) => {
      event.preventDefault(); // its own way would give the button's value
      dialog.close(input.value.trim());
    };
  });
}
