rule describe_survey:
    input:
        code=code("dark_halo_scope.survey.describe", "spark"),
    output:
        "results/survey.json",
    log:
        "logs/describe_survey.log",
    benchmark:
        "benchmarks/describe_survey.tsv"
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=settings("survey", "survey"),
    message:
        "Describing the survey (the embedded one is drawn first)"
    shell:
        "exec python -m dark_halo_scope.survey.describe --settings {params.settings:q} --processes {threads}"
        " --output {output} 2> >(tee {log} >&2)"


rule cache_coadds:
    input:
        survey="results/survey.json",
        manifest="results/datasets/{dataset}/manifest.json",
        code=code("dark_halo_scope.survey.cache_coadds", "spark"),
    output:
        "results/datasets/{dataset}/coadds.json",
    log:
        "logs/cache_coadds/{dataset}.log",
    benchmark:
        "benchmarks/cache_coadds/{dataset}.tsv"
    # Where the workflow runs: compute nodes often have no internet.
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        mem_mb=2000,
        runtime=1440,
    params:
        settings=settings("survey", "coadds"),
    message:
        "Fetching and checking the coadds that {wildcards.dataset} needs"
    shell:
        "exec python -m dark_halo_scope.survey.cache_coadds --survey {input.survey} --manifest {input.manifest}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"
