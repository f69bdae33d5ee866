// What the beginning of a channel's name tells.

export function kindOf(name) {
  if (name.startsWith("private-encrypted-")) return "encrypted";
  return /^(private|presence)-/.exec(name)?.[1] ?? "public";
}
