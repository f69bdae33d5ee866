// The one place that names the file of the library.
export { Component, html, render, useLayoutEffect, useMemo, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
